import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../../runtime/duration.ts'

const HeaderName = Type.String({ pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}$" })
const HeaderValue = Type.String({ maxLength: 4096, pattern: '^[\\t\\x20-\\x7e\\x80-\\xff]*$' })

/** A key's length counts by its pattern alone, and a dot would pass over names with line breaks. */
const FieldName = Type.String({ pattern: '^[\\s\\S]{1,128}$' })

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
      Type.Record(FieldName, Type.String({ maxLength: 4096 }), {
        maxProperties: 64,
        additionalProperties: false,
        description: 'Constant fields that are added to a form',
      }),
    ),
    rename: Type.Optional(
      Type.Record(FieldName, Type.String({ minLength: 1, maxLength: 128 }), {
        maxProperties: 64,
        additionalProperties: false,
        description: 'Fields of the payload that a form has under another name',
        examples: [{ clientId: 'client_id' }],
      }),
    ),
    together: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 128 }), {
        minItems: 2,
        maxItems: 64,
        uniqueItems: true,
        description:
          'Fields of the payload that a form has all or not at all: a payload with some of them (null is none), or with no field whatever, is a dead letter',
        examples: [['clientId', 'shipmentPackageId']],
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

const Duration = (example: string) => Type.String({ pattern: DURATION_PATTERN, examples: [example] })
const Share = (description: string) => Type.Optional(Type.Number({ minimum: 0, maximum: 1, default: 0, description }))

const NoopTargetSchema = Type.Object(
  {
    type: Type.Literal('noop'),
    delay: Type.Optional(
      Type.Union(
        [
          Type.String({ pattern: DURATION_PATTERN }),
          Type.Object({ min: Duration('1s'), max: Duration('8s') }, { additionalProperties: false }),
        ],
        { default: '0ms', description: 'How long the work takes: always the same, or any time from `min` to `max`' },
      ),
    ),
    delayPerDot: Type.Optional(
      Type.String({
        pattern: DURATION_PATTERN,
        description: 'How much longer it takes for each "." in the payload’s text',
        examples: ['1s'],
      }),
    ),
    log: Type.Optional(
      Type.Boolean({ default: false, description: 'Writes the payload’s text to the log of the task' }),
    ),
    failRate: Share('Share of attempts that fail and are tried again'),
    deadRate: Share('Share of attempts that fail for good'),
  },
  { additionalProperties: false, title: 'noop', description: 'Imitates work' },
)

const Pointer = Type.String({
  maxLength: 512,
  pattern: '^(/([^~/]|~[01])*)*$',
  description: 'A JSON Pointer (RFC 6901) into the payload; "" is all of it',
  examples: ['/customer/name', '/items/0/sku'],
})

const ColumnSource = Type.Union(
  [
    Pointer,
    Type.Object(
      {
        path: Pointer,
        default: Type.Optional(
          Type.Unknown({ description: 'Taken when the payload has nothing there; without it the task is dead then' }),
        ),
      },
      { additionalProperties: false },
    ),
    Type.Object({ value: Type.Unknown({ description: 'The same for every row' }) }, { additionalProperties: false }),
  ],
  { description: "Where a column's value comes from" },
)
export type ColumnSource = Static<typeof ColumnSource>

const TableTargetSchema = Type.Object(
  {
    type: Type.Literal('table'),
    table: Type.String({
      maxLength: 127,
      minLength: 1,
      description:
        'The table, with its schema or without, written as it is called (as if quoted). Without a schema: "data", or "public" of the database of TABLE_DATABASE_URL',
      examples: ['orders', 'sales.orders'],
    }),
    columns: Type.Optional(
      Type.Record(Type.String({ pattern: '^[^\\x00]{1,63}$' }), ColumnSource, {
        minProperties: 1,
        maxProperties: 500,
        additionalProperties: false,
        description: "By column; without it the payload's top-level fields are the columns of the same names",
        examples: [
          {
            client_name: '/client/name',
            amount: '/amount',
            status: { path: '/status', default: 'new' },
            source: { value: 'shop' },
          },
        ],
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'table',
    description: 'Inserts the payload as a row of a Postgres table, once a task',
  },
)

const CsvColumn = Type.String({ minLength: 1, maxLength: 256 })

const CsvTargetSchema = Type.Object(
  {
    type: Type.Literal('csv'),
    path: Type.String({
      maxLength: 255,
      minLength: 1,
      description:
        'The file, below DATA_DIR/out, with an ending. Its folders are made; no part of it begins with a dot',
      examples: ['orders.csv', 'shop/orders.csv'],
    }),
    columns: Type.Optional(
      Type.Array(
        Type.Union([CsvColumn, Type.Object({ name: CsvColumn, path: Pointer }, { additionalProperties: false })]),
        {
          minItems: 1,
          maxItems: 500,
          description:
            "In their order: a name (the payload's top-level field of that name), or a name and a path. Without it those of the file's header, or the fields of the first payload",
          examples: [['id', 'status', { name: 'customer', path: '/customer/name' }]],
        },
      ),
    ),
    header: Type.Optional(
      Type.Boolean({ default: true, description: 'Whether each file begins with its column names' }),
    ),
    delimiter: Type.Optional(
      Type.Union(
        [',', ';', '\t', '|'].map((delimiter) => Type.Literal(delimiter)),
        { default: ',' },
      ),
    ),
    guardFormulas: Type.Optional(
      Type.Boolean({
        default: false,
        description:
          "Puts a ' before texts that a spreadsheet would run as a formula (they begin with = + - @, a tab or a line break)",
      }),
    ),
    rotate: Type.Optional(
      Type.Object(
        {
          size: Type.Optional(
            Type.Integer({
              minimum: 1024,
              maximum: 1_000_000_000_000,
              description:
                'Bytes that no file exceeds, unless one line alone does; then come name.1.csv, name.2.csv, ...',
              examples: [100_000_000],
            }),
          ),
          every: Type.Optional(
            Type.Literal('day', { description: 'A file a day, by UTC, named by it: name-2026-11-25.csv' }),
          ),
        },
        { additionalProperties: false, minProperties: 1, description: 'When another file is begun' },
      ),
    ),
  },
  {
    additionalProperties: false,
    title: 'csv',
    description: 'Appends the payload as a line of a CSV file, once a task',
  },
)

const PublishTargetSchema = Type.Object(
  {
    type: Type.Literal('publish'),
    exchange: Type.Optional(
      Type.String({
        maxLength: 127,
        pattern: '^[A-Za-z0-9._:-]*$',
        default: '',
        description: 'Without it the message goes to the queue that the routing key names',
        examples: ['orders'],
      }),
    ),
    routingKey: Type.String({ maxLength: 255, pattern: '^[^\\x00]*$', examples: ['order.created'] }),
    headers: Type.Optional(
      Type.Record(Type.String({ pattern: '^[\\x21-\\x7e]{1,128}$' }), Type.String({ maxLength: 4096 }), {
        maxProperties: 64,
        additionalProperties: false,
      }),
    ),
  },
  {
    additionalProperties: false,
    title: 'publish',
    description: 'Sends the payload as a message to an exchange or a queue; its message id is the task id',
  },
)

const ImportTargetSchema = Type.Object(
  { type: Type.Literal('import') },
  {
    additionalProperties: false,
    title: 'import',
    description:
      'Reads the file of a source and makes tasks of its records; for the queues ftp.csv, ftp.json and ftp.xml',
  },
)

/** What a task may bring along. */
export const OwnTargetSchema = Type.Union(
  [HttpTargetSchema, TableTargetSchema, CsvTargetSchema, PublishTargetSchema, HandlerTargetSchema, NoopTargetSchema],
  { description: 'Where a task is delivered' },
)
/** What a thread can run. */
export const TargetSchema = Type.Union([...OwnTargetSchema.anyOf, ImportTargetSchema], {
  description: 'Where a task is delivered',
})
export type HttpTarget = Static<typeof HttpTargetSchema>
export type TableTarget = Static<typeof TableTargetSchema>
export type CsvTarget = Static<typeof CsvTargetSchema>
export type PublishTarget = Static<typeof PublishTargetSchema>
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

/**
 * Tasks with the same affinity run in the same thread, one thread at a time: a table's, so that they share a statement, and a
 * file's, because it has one writer. Null: in any thread.
 */
export function affinityOf(target: Target, taskId = ''): string | null {
  switch (target.type) {
    case 'table':
      return `table:${target.table}`
    case 'csv':
      return `csv:${target.path}`
    case 'import':
      // Where no handler can hold it up or take it along.
      return `import:${taskId}`
    case 'http':
    case 'publish':
    case 'handler':
    case 'noop':
      return null
    default:
      return target satisfies never
  }
}

const HIDDEN = '[secret]'
/** Headers and form fields with these words in their names carry credentials. */
const CREDENTIAL = /auth|cookie|token|secret|password|passwd|credential|signature|api[-_]?key/i

/** The target as a response shows it: without its secret and without the credentials in its headers and fields. */
export function withoutSecret<T extends ConsumerTarget>(target: T): T {
  if (target.type === 'publish' && target.headers) return { ...target, headers: hideCredentials(target.headers) }
  if (target.type !== 'http') return target
  const { secret, headers, fields, ...rest } = target
  return {
    ...rest,
    ...(headers && { headers: hideCredentials(headers) }),
    ...(fields && { fields: hideCredentials(fields) }),
    ...(secret && { secret: HIDDEN }),
  } as T
}

/** What `withoutSecret` hides of a target: whoever repeats it must not be quoted. */
export function secretsOf({ secret, headers, fields }: HttpTarget): string[] {
  const named = [...Object.entries(headers ?? {}), ...Object.entries(fields ?? {})]
  const hidden = named.flatMap(([name, value]) => (CREDENTIAL.test(name) ? [value] : []))
  return [...[secret ?? []].flat(), ...hidden].filter((value) => value !== '')
}

function hideCredentials(values: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, CREDENTIAL.test(name) ? HIDDEN : value]),
  )
}
