import { type TSchema, Type } from '@sinclair/typebox'

/* Words that schemas of answers are written in. */

export const Nullable = <S extends TSchema>(schema: S) => Type.Union([schema, Type.Null()])
export const Time = (description: string) => Type.String({ format: 'date-time', description })
export const Count = (description: string) => Type.Integer({ minimum: 0, description })
export const OneOf = <Word extends string>(words: readonly Word[], description: string) =>
  Type.Union(
    words.map((word) => Type.Literal(word)),
    { description },
  )
