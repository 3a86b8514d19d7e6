import { type TSchema, Type } from '@sinclair/typebox'
import { invalid } from '../runtime/errors.ts'
import { isUuid } from '../runtime/uuid.ts'
import { unstorable } from './validation.ts'

/** The query of a keyset-paged list; spread it into the list's own query schema. */
export const PageQuery = {
  limit: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 500, default: 50, description: 'Items at most, 1 to 500; 50 by default' }),
  ),
  after: Type.Optional(
    Type.String({
      maxLength: 512,
      description: 'The `next` of the page before; opaque',
      examples: ['WyIyMDI2LTAxLTAxVDAwOjAwOjAwLjAwMFoiXQ'],
    }),
  ),
}

export const DEFAULT_LIMIT = 50

/** `{ items, next }`; `next` is null on the last page. */
export function PageOf<S extends TSchema>(item: S) {
  return Type.Object({
    items: Type.Array(item),
    next: Type.Union([Type.String(), Type.Null()], { description: 'Give it as `after` to read on; null at the end' }),
  })
}

/** The place after an item as an opaque text. */
export function cursorOf(key: readonly (string | number)[]): string {
  return Buffer.from(JSON.stringify(key)).toString('base64url')
}

/** The first `limit` of what was read with one more than that, and the place to read on from. */
export function pageOf<T>(
  read: readonly T[],
  limit: number,
  keyOf: (item: T) => readonly (string | number)[],
): { items: T[]; next: string | null } {
  const items = read.slice(0, limit)
  const last = items.at(-1)
  return { items, next: last !== undefined && read.length > limit ? cursorOf(keyOf(last)) : null }
}

/** The text if it is a UUID, in lower case: what is none names nothing, and Postgres must not be asked. */
export function uuidIn(text: string): string | undefined {
  return isUuid(text) ? text.toLowerCase() : undefined
}

/** The place that `after` names, checked to have the same kinds as `kinds`; a Problem `validation` for anything that we did not give out. */
export function placeOf<const K extends readonly ('string' | 'number')[]>(
  after: string,
  kinds: K,
  fits: (key: readonly unknown[]) => boolean = () => true,
): { [I in keyof K]: K[I] extends 'number' ? number : string } {
  try {
    const key: unknown = JSON.parse(Buffer.from(after, 'base64url').toString('utf8'))
    if (
      Array.isArray(key) &&
      key.length === kinds.length &&
      key.every((part, i) => typeof part === kinds[i]) &&
      unstorable(key).length === 0 &&
      fits(key)
    ) {
      return key as { [I in keyof K]: K[I] extends 'number' ? number : string }
    }
  } catch {
    // Told below: what does not parse is as foreign as what has the wrong shape.
  }
  throw invalid('/after', 'is not the `next` of a page')
}
