import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../runtime/duration.ts'

const HeaderName = Type.String({ pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$" })
const HeaderValue = Type.String({ maxLength: 4096, pattern: '^[\\t\\x20-\\x7e\\x80-\\xff]*$' })

const HttpTargetSchema = Type.Object(
  {
    type: Type.Literal('http'),
    url: Type.String({
      minLength: 1,
      maxLength: 2048,
      pattern: '^https?://',
      examples: ['https://api.example.com/hook'],
    }),
    method: Type.Optional(
      Type.Union(
        ['POST', 'PUT', 'PATCH', 'DELETE', 'GET'].map((method) => Type.Literal(method)),
        { default: 'POST' },
      ),
    ),
    headers: Type.Optional(Type.Record(HeaderName, HeaderValue, { maxProperties: 64, additionalProperties: false })),
    format: Type.Optional(
      Type.Union([Type.Literal('json'), Type.Literal('form')], {
        default: 'json',
        description: 'json: the payload as it was submitted; form: its top-level fields, URL-encoded',
      }),
    ),
    fields: Type.Optional(
      // A key's length counts by its pattern alone, and a dot would pass over names with line breaks.
      Type.Record(Type.String({ pattern: '^[\\s\\S]{1,128}$' }), Type.String({ maxLength: 4096 }), {
        maxProperties: 64,
        additionalProperties: false,
        description: 'Constant fields that are added to a form',
      }),
    ),
    success: Type.Optional(
      Type.Array(Type.Integer({ minimum: 100, maximum: 599 }), {
        minItems: 1,
        maxItems: 100,
        description: 'Status codes that count as success; by default 200 to 299',
      }),
    ),
    secret: Type.Optional(
      Type.Union(
        [
          Type.String({ minLength: 16, maxLength: 256 }),
          Type.Array(Type.String({ minLength: 16, maxLength: 256 }), { minItems: 1, maxItems: 2 }),
        ],
        { description: 'Signs each request (Standard Webhooks); two while rotating. Never shown again.' },
      ),
    ),
  },
  { additionalProperties: false, title: 'http', description: 'Sends the payload to an HTTP API' },
)

const HandlerTargetSchema = Type.Object(
  {
    type: Type.Literal('handler'),
    name: Type.String({
      pattern: '^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$',
      description: 'A file in HANDLERS_DIR, without its ending',
    }),
  },
  { additionalProperties: false, title: 'handler', description: 'Calls your own function' },
)

const Share = (description: string) => Type.Optional(Type.Number({ minimum: 0, maximum: 1, default: 0, description }))

const NoopTargetSchema = Type.Object(
  {
    type: Type.Literal('noop'),
    delay: Type.Optional(
      Type.String({ pattern: DURATION_PATTERN, default: '0ms', description: 'How long the work takes' }),
    ),
    failRate: Share('Share of attempts that fail and are tried again'),
    deadRate: Share('Share of attempts that fail for good'),
  },
  { additionalProperties: false, title: 'noop', description: 'Imitates work' },
)

/** What a thread can run. */
export const TargetSchema = Type.Union([HttpTargetSchema, HandlerTargetSchema, NoopTargetSchema], {
  description: 'Where a task is delivered',
})
export type HttpTarget = Static<typeof HttpTargetSchema>
export type NoopTarget = Static<typeof NoopTargetSchema>
export type Target = Static<typeof TargetSchema>

/** A consumer delivers to one target, or, with `task`, to the one that each task brings. */
export const ConsumerTargetSchema = Type.Union([
  ...TargetSchema.anyOf,
  Type.Object(
    { type: Type.Literal('task') },
    { additionalProperties: false, title: 'task', description: "Delivers to each task's own target" },
  ),
])
export type ConsumerTarget = Static<typeof ConsumerTargetSchema>

const HIDDEN = '[secret]'
/** Headers and form fields with these words in their names carry credentials. */
const CREDENTIAL = /auth|cookie|token|secret|password|passwd|credential|signature|api[-_]?key/i

/** The target as a response shows it: without its secret and without the credentials in its headers and fields. */
export function withoutSecret<T extends ConsumerTarget>(target: T): T {
  if (target.type !== 'http') return target
  const { secret, headers, fields, ...rest } = target
  return {
    ...rest,
    ...(headers && { headers: hideCredentials(headers) }),
    ...(fields && { fields: hideCredentials(fields) }),
    ...(secret && { secret: HIDDEN }),
  } as T
}

function hideCredentials(values: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, CREDENTIAL.test(name) ? HIDDEN : value]),
  )
}
