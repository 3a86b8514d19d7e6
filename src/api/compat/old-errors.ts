import { Type } from '@sinclair/typebox'
import { type FieldError, Problem } from '../../runtime/errors.ts'

/** What `orErrors` answers. */
export const Errors = Type.Object({ errors: Type.Record(Type.String(), Type.Array(Type.String())) })

/** Our fields, where the older system has another word. */
const OLD_WORDS: Record<string, string> = { format: 'content_type', auth: 'password' }

/** What is not valid is 400 `{ errors: { field: [text] } }` there; all other problems stay what they are. */
export async function orErrors(answer: () => Promise<Response>): Promise<Response> {
  try {
    return await answer()
  } catch (error) {
    if (!(error instanceof Problem) || !['validation', 'malformed-json'].includes(error.code)) throw error
    return Response.json({ errors: byField(error) }, { status: 400 })
  }
}

function byField({ errors, detail }: Problem): Record<string, string[]> {
  const all: readonly FieldError[] = errors.length > 0 ? errors : [{ path: '', message: detail }]
  const fields = Object.groupBy(all, ({ path }) => {
    const field = path.split('/')[1] ?? ''
    return OLD_WORDS[field] ?? (field === '' ? 'non_field_errors' : field)
  })
  return Object.fromEntries(
    Object.entries(fields).map(([field, found = []]) => [field, found.map((one) => one.message)]),
  )
}
