import { Kind, type Static, type TObject, type TSchema, type TUnion } from '@sinclair/typebox'
import { type TypeCheck, TypeCompiler } from '@sinclair/typebox/compiler'
import { Value, type ValueError, ValueErrorType } from '@sinclair/typebox/value'
import { DURATION_PATTERN } from '../runtime/duration.ts'
import { type FieldError, invalid, Problem } from '../runtime/errors.ts'

/** A caller who sends rubbish is told this many mistakes at most. */
const MAX_ERRORS = 20

const compiled = new WeakMap<TSchema, TypeCheck<TSchema>>()

/** The value as the schema's type; a Problem `validation` with a sentence per wrong field when it does not fit. */
export function checked<S extends TSchema>(schema: S, value: unknown): Static<S> {
  let check = compiled.get(schema)
  if (!check) {
    check = TypeCompiler.Compile(schema)
    compiled.set(schema, check)
  }
  if (check.Check(value)) return value as Static<S>
  const errors = fieldErrors(check.Errors(value))
  const first = errors[0]
  throw new Problem(
    'validation',
    first ? `${first.path || 'The body'}: ${first.message}` : 'The value does not fit',
    errors,
  )
}

/** Throws the Problem `validation` of one field; an empty path is the whole body. */
export function refuse(path: string, message: string): never {
  throw invalid(path, message)
}

/** Query parameters as the schema's type: numbers and booleans are read from their text, a repeated or unknown one is refused. */
export function readQuery<S extends TObject>(schema: S, request: Request): Static<S> {
  const raw: Record<string, unknown> = Object.create(null)
  const { searchParams } = new URL(request.url)
  for (const [name, value] of searchParams) {
    if (Object.hasOwn(raw, name)) throw invalid(`/${name}`, 'may be given only once')
    raw[name] = fromText(schema.properties[name], value)
  }
  const query = checked(schema, { ...raw })
  const errors = unstorable(query)
  if (errors.length > 0) throw new Problem('validation', 'The query holds text that cannot be stored', errors)
  return query
}

function fromText(schema: TSchema | undefined, text: string): unknown {
  if (schema?.[Kind] === 'Integer' || schema?.[Kind] === 'Number')
    return /^-?\d+(\.\d+)?$/.test(text) ? Number(text) : text
  if (schema?.[Kind] === 'Boolean') return text === 'true' ? true : text === 'false' ? false : text
  return text
}

/** The errors of a TypeBox check as one sentence per path; a union tells about the branch that was meant. */
export function fieldErrors(errors: Iterable<ValueError>): FieldError[] {
  const found = new Map<string, FieldError>()
  const add = (error: ValueError) => {
    const inner = error.type === ValueErrorType.Union ? meantBranch(error) : undefined
    if (inner) {
      for (const nested of inner) add({ ...nested, path: error.path + nested.path })
    } else if (!found.has(error.path)) {
      found.set(error.path, { path: error.path, message: sentence(error) })
    }
  }
  for (const error of errors) {
    add(error)
    if (found.size >= MAX_ERRORS) break
  }
  return [...found.values()].slice(0, MAX_ERRORS)
}

/** The errors of the union's branch whose literal field (`type`, `kind`) the value names, or that alone is of its kind or stands beside null; undefined when no branch is meant. */
function meantBranch(error: ValueError): ValueError[] | undefined {
  const value = error.value
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    const type = Array.isArray(value) ? 'array' : typeof value
    const ofType = ((error.schema as TUnion).anyOf ?? []).filter((branch) => branch.type === type)
    return ofType.length === 1 && ofType[0]?.const === undefined
      ? [...Value.Errors(ofType[0] as TSchema, value)]
      : undefined
  }
  for (const branch of (error.schema as TUnion).anyOf ?? []) {
    const literals = Object.entries((branch as TObject).properties ?? {}).filter(
      ([, field]) => field.const !== undefined,
    )
    if (
      literals.length > 0 &&
      literals.every(([name, field]) => (value as Record<string, unknown>)[name] === field.const)
    ) {
      return [...Value.Errors(branch, value)]
    }
  }
  const others = ((error.schema as TUnion).anyOf ?? []).filter((branch) => branch.type !== 'null')
  return others.length === 1 ? [...Value.Errors(others[0] as TSchema, value)] : undefined
}

function sentence(error: ValueError): string {
  const schema = error.schema
  switch (error.type) {
    case ValueErrorType.ObjectAdditionalProperties:
      return schema.patternProperties === undefined
        ? 'is not a known field'
        : `is not a name that can stand here: it must match ${Object.keys(schema.patternProperties).join(' or ')}`
    case ValueErrorType.ObjectRequiredProperty:
      return 'is required'
    case ValueErrorType.Union:
    case ValueErrorType.Literal:
      return `must be ${allowed(schema)}`
    case ValueErrorType.StringPattern:
      if (schema.pattern === DURATION_PATTERN) return 'must be a duration such as 250ms, 30s, 15m, 2h or 7d'
      return `must match ${schema.pattern}${schema.description ? ` (${schema.description})` : ''}`
    case ValueErrorType.StringFormat:
      return `must be a valid ${schema.format}`
    case ValueErrorType.StringMinLength:
      return `must have at least ${schema.minLength} characters`
    case ValueErrorType.StringMaxLength:
      return `must have at most ${schema.maxLength} characters`
    case ValueErrorType.ArrayMinItems:
      return `must have at least ${schema.minItems} items`
    case ValueErrorType.ArrayMaxItems:
      return `must have at most ${schema.maxItems} items`
    case ValueErrorType.ArrayUniqueItems:
      return 'must not name anything twice'
    case ValueErrorType.ObjectMaxProperties:
      return `must have at most ${schema.maxProperties} fields`
    case ValueErrorType.ObjectMinProperties:
      return `must have at least ${schema.minProperties} ${schema.minProperties === 1 ? 'field' : 'fields'}`
    case ValueErrorType.IntegerMinimum:
    case ValueErrorType.NumberMinimum:
      return `must be at least ${schema.minimum}`
    case ValueErrorType.IntegerMaximum:
    case ValueErrorType.NumberMaximum:
      return `must be at most ${schema.maximum}`
    default:
      return schema.type === undefined ? error.message : `must be of type ${schema.type}`
  }
}

/** What a literal or union takes, in words: the literals, or the branches' names. */
function allowed(schema: TSchema): string {
  if (schema.const !== undefined) return JSON.stringify(schema.const)
  const branches: TSchema[] = schema.anyOf ?? []
  const objects = branches.filter((branch) => branch.properties)
  if (objects.length > 1) {
    const tag = Object.entries((objects[0] as TObject).properties).find(([, field]) => field.const !== undefined)?.[0]
    if (tag) return `an object whose "${tag}" is ${objects.map((branch) => allowed(branch.properties[tag])).join(', ')}`
  }
  return branches
    .map((branch) => (branch.const === undefined ? `of type ${branch.type}` : allowed(branch)))
    .join(' or ')
}

/** Text that Postgres cannot hold (NUL, lone surrogates), by path. */
export function unstorable(value: unknown, path = ''): FieldError[] {
  if (typeof value === 'string') {
    return value.includes('\0') || !value.isWellFormed()
      ? [{ path, message: 'must not hold NUL or lone surrogates' }]
      : []
  }
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([name, field]) => {
    const at = `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
    return [...unstorable(name, at), ...unstorable(field, at)]
  })
}
