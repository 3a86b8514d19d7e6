import { Ajv, type Options, type ValidateFunction } from 'ajv'
import { Ajv2020 } from 'ajv/dist/2020.js'
import formats from 'ajv-formats'
import { messageOf } from '../../runtime/errors.ts'
import { FORMAT_LIMITS } from '../../task/source/file-format.ts'

const DRAFT_07 = /^https?:\/\/json-schema\.org\/draft-07\/schema#?$/
const DRAFT_2020 = /^https:\/\/json-schema\.org\/draft\/2020-12\/schema#?$/
/** Keywords whose value names another schema. */
const REFERENCES = ['$ref', '$dynamicRef', '$recursiveRef']
const OPTIONS: Options = {
  // A misspelt keyword would let everything pass.
  strictSchema: true,
  strictNumbers: true,
  strictTypes: false,
  strictTuples: false,
  strictRequired: false,
  logger: false,
}

/** Why a record's text does not satisfy the schema; undefined when it does. */
export type RecordCheck = (json: string) => string | undefined

/**
 * Compiles a JSON Schema, once a file. It must be whole in itself: nothing is ever fetched. A schema that cannot be used
 * gives what is wrong with it.
 */
export function recordCheck(schema: Record<string, unknown>): RecordCheck | { reason: string } {
  const text = JSON.stringify(schema)
  if (Buffer.byteLength(text) > FORMAT_LIMITS.schemaBytes) {
    return { reason: `is larger than ${FORMAT_LIMITS.schemaBytes} bytes` }
  }
  const outside = outsideReference(schema)
  if (outside !== undefined)
    return { reason: `refers to ${JSON.stringify(outside)}: only "#..." within the schema is allowed` }
  const dialect = schema.$schema
  const isDraft07 = typeof dialect === 'string' && DRAFT_07.test(dialect)
  if (dialect !== undefined && !isDraft07 && !(typeof dialect === 'string' && DRAFT_2020.test(dialect))) {
    return { reason: 'has a "$schema" that is neither 2020-12 nor draft-07' }
  }
  try {
    const ajv = isDraft07 ? new Ajv(OPTIONS) : new Ajv2020(OPTIONS)
    formats.default(ajv)
    const validate = ajv.compile(schema)
    return (json) => firstFault(validate, json)
  } catch (error) {
    return { reason: messageOf(error) }
  }
}

function firstFault(validate: ValidateFunction, json: string): string | undefined {
  try {
    if (validate(JSON.parse(json))) return undefined
  } catch (error) {
    // A schema that refers to itself without end.
    if (error instanceof RangeError) return 'The schema cannot be applied: it refers to itself without end'
    throw error
  }
  const { instancePath = '', message = 'does not satisfy the schema', params } = validate.errors?.[0] ?? {}
  const detail = Object.values((params as Record<string, unknown> | undefined) ?? {}).find(
    (value) => typeof value === 'string',
  )
  const shown = detail !== undefined && !message.includes(String(detail)) ? ` (${String(detail).slice(0, 100)})` : ''
  return `${instancePath === '' ? 'The record' : instancePath.slice(0, 256)} ${message.slice(0, 500)}${shown}`
}

/** A reference out of the schema, if there is one. */
function outsideReference(schema: unknown): string | undefined {
  const open: unknown[] = [schema]
  while (open.length > 0) {
    const value = open.pop()
    if (typeof value !== 'object' || value === null) continue
    for (const [name, member] of Object.entries(value)) {
      if (REFERENCES.includes(name) && typeof member === 'string' && !member.startsWith('#')) return member
      open.push(member)
    }
  }
  return undefined
}
