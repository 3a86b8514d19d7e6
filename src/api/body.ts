import type { Static, TObject, TSchema } from '@sinclair/typebox'
import { messageOf, Problem } from '../runtime/errors.ts'
import { checkJsonText, memberSpans } from '../task/json/text.ts'
import { LIMITS } from '../task/limits.ts'
import { checked, refuse, unstorable } from './validation.ts'

/** What small bodies (queues, consumers, keys) may weigh, in bytes. */
export const SMALL_BODY_BYTES = 256 * 1024
/** A payload of the largest size with a target of the largest size around it. */
export const SUBMISSION_BYTES = LIMITS.payloadBytes * 2

/**
 * The body as text, counted while it is read: `too-large` as soon as more than `limitBytes` came in, `unsupported-media-type` unless the
 * Content-Type is one of `types` (none at all is taken as JSON), `bad-request` when it is not UTF-8.
 */
export async function readText(
  request: Request,
  limitBytes: number,
  types: readonly string[] = ['application/json'],
): Promise<string> {
  checkType(request, types)
  return readUntyped(request, limitBytes)
}

function checkType(request: Request, types: readonly string[]): void {
  const type = (request.headers.get('content-type') ?? types[0] ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
  if (!types.includes(type) && !(types.includes('application/json') && type.endsWith('+json'))) {
    throw new Problem('unsupported-media-type', `The body must be ${types.join(' or ')}, not ${type || 'unnamed'}`)
  }
}

/** As `readText`, whatever the Content-Type says. */
export async function readUntyped(request: Request, limitBytes: number): Promise<string> {
  const tooLarge = () => new Problem('too-large', `The body may have at most ${limitBytes} bytes`)
  if (Number(request.headers.get('content-length') ?? 0) > limitBytes) throw tooLarge()
  const chunks: Uint8Array[] = []
  let bytes = 0
  if (request.body) {
    const reader = request.body.getReader()
    try {
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        bytes += value.byteLength
        if (bytes > limitBytes) throw tooLarge()
        chunks.push(value)
      }
    } catch (error) {
      // The rest is not wanted; a failure to say so changes nothing.
      reader.cancel().catch(() => undefined)
      if (error instanceof Problem) throw error
      throw new Problem('bad-request', `The body ended before its end: ${messageOf(error)}`, [], { cause: error })
    }
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(
      chunks.length === 1 ? chunks[0] : Buffer.concat(chunks, bytes),
    )
  } catch (error) {
    throw new Problem('bad-request', 'The body is not valid UTF-8', [], { cause: error })
  }
}

/** The text as JSON; `malformed-json` when it is none. */
export function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    if (text.trim() === '') throw new Problem('malformed-json', 'The body is empty; JSON is expected')
    throw new Problem('malformed-json', `The body is not valid JSON: ${messageOf(error)}`, [], { cause: error })
  }
}

/** Checks the text of a body around a value that is kept as it came; what `checkJsonText` finds is a Problem `validation` at its path. */
export function checkEnvelope(text: string): void {
  const json = checkJsonText(text, { maxDepth: LIMITS.jsonDepth + 1 })
  if (!json.ok) refuse(json.path, json.reason)
}

/**
 * The very text of a member of a body that has passed `checkEnvelope`; undefined when it has none of this name, or is no object.
 * A Problem `validation` when a name, whichever, stands there twice.
 */
export function memberText(text: string, name: string): string | undefined {
  const found = memberSpans(text)
  if (found && !found.ok) refuse(found.path, found.reason)
  const span = found?.ok ? found.members.get(name) : undefined
  return span && text.slice(...span)
}

/** The JSON body, checked against `schema`: unknown fields, wrong types and text that Postgres cannot hold are a Problem `validation`. */
export async function readBody<S extends TSchema>(
  schema: S,
  request: Request,
  limitBytes: number = SMALL_BODY_BYTES,
): Promise<Static<S>> {
  const value = checked(schema, parseJson(await readText(request, limitBytes)))
  const errors = unstorable(value)
  if (errors.length > 0) throw new Problem('validation', 'The body holds text that cannot be stored', errors)
  return value
}

/** The JSON body, checked against `schema`, whose fields are all optional; `{}` when it is left out or blank. Throws Problem. */
export async function readOptionalBody<S extends TObject>(schema: S, request: Request): Promise<Partial<Static<S>>> {
  if (request.body === null) return {}
  const text = await readText(request, SMALL_BODY_BYTES)
  return text.trim() === '' ? {} : checked(schema, parseJson(text))
}
