import type { Static, TObject } from '@sinclair/typebox'
import { invalid, Problem } from '../../runtime/errors.ts'
import { faultProblem } from '../../submit/validate.ts'
import { checkJsonText, memberSpans } from '../../task/json/text.ts'
import { LIMITS } from '../../task/limits.ts'
import { readUntyped } from '../body.ts'
import { checked } from '../validation.ts'

/** A payload of the largest size, escaped, with what stands around it. */
const BODY_BYTES = LIMITS.payloadBytes * 2

export interface OldBody<S extends TObject> {
  body: Static<S>
  /** Of the field that was asked for, the JSON text as it was sent; empty without one. */
  raw: string
  /** The JSON text of each field. */
  texts: ReadonlyMap<string, string>
}

/**
 * The JSON object that an older client sends, whatever Content-Type it gives; checked like every other body. The field
 * `raw` is a payload, no larger than one.
 */
export async function readOldBody<S extends TObject>(schema: S, request: Request, raw?: string): Promise<OldBody<S>> {
  return parseOldBody(schema, await readUntyped(request, BODY_BYTES), raw)
}

/** As `readOldBody`, of a body that was read. */
export function parseOldBody<S extends TObject>(schema: S, text: string, raw?: string): OldBody<S> {
  const json = checkJsonText(text, { maxDepth: LIMITS.jsonDepth + 1 })
  if (!json.ok) throw faultProblem(json)
  const found = memberSpans(text)
  if (!found) throw invalid('', 'must be an object')
  if (!found.ok) throw faultProblem(found)
  const texts = new Map([...found.members].map(([name, span]) => [name, text.slice(...span)] as const))
  const rawText = raw === undefined ? '' : (texts.get(raw) ?? '')
  if (Buffer.byteLength(rawText) > LIMITS.payloadBytes)
    throw invalid(`/${raw}`, `may have at most ${LIMITS.payloadBytes} bytes`, 'too-large')
  // A payload is kept as its text and never parsed.
  const value = Object.fromEntries([...texts].map(([name, part]) => [name, name === raw ? null : JSON.parse(part)]))
  return { body: checked(schema, value), raw: rawText, texts }
}

/** What is not valid is a 400 in most of the older systems. */
export async function orBadRequest<T>(read: () => T | Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof Problem) || error.code !== 'validation') throw error
    throw new Problem('bad-request', error.detail, error.errors, { cause: error })
  }
}

/** Where a body that cannot be read is as invalid as one with wrong fields: 422, with a path. */
export async function orUnprocessable<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read()
  } catch (error) {
    if (!(error instanceof Problem) || !['malformed-json', 'bad-request'].includes(error.code)) throw error
    const errors = error.errors.length > 0 ? error.errors : [{ path: '', message: error.detail }]
    throw new Problem('validation', error.detail, errors, { cause: error })
  }
}
