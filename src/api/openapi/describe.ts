import type { TObject, TSchema } from '@sinclair/typebox'
import type { DocumentDecoration } from 'elysia'
import { PROBLEMS, type ProblemCode } from '../../runtime/errors.ts'

/** What the OpenAPI document says of a route; its schemas are the very ones that the route checks with. */
export interface Description {
  tag: string
  /** A few words, as a list shows them. */
  summary: string
  /** What it promises, in a sentence or two. */
  description: string
  query?: TObject
  /** Path parameters by name: their description, or a schema. */
  params?: Record<string, string | TSchema>
  /** The body's schema and an example. */
  body?: readonly [TSchema, unknown]
  /** The body may be left out. */
  optionalBody?: boolean
  /** Takes the same body as one JSON value per line, too. */
  ndjson?: boolean
  /**
   * How an older system takes what is sent: JSON whatever its Content-Type says, and with this answer when it is not valid;
   * `validation` is that of a body, too, that cannot be read.
   */
  older?: { invalid: 'bad-request' | 'validation' }
  /** By status: description, and for a JSON body its schema and an example. */
  responses: Record<number, readonly [string, TSchema?, unknown?]>
  /** What can go wrong beside that which every route shares. */
  problems?: readonly ProblemCode[]
}

const UNREADABLE = ['malformed-json', 'bad-request'] as const

/** The `detail` of a route. */
export function describe(route: Description): DocumentDecoration {
  const codes = new Set<ProblemCode>(['unauthenticated', 'forbidden', 'internal', 'database-unavailable'])
  const invalid = route.older?.invalid ?? 'validation'
  if (route.query) codes.add(invalid)
  if (route.body) {
    for (const code of ['too-large', invalid] as const) codes.add(code)
    if (route.older?.invalid !== 'validation') for (const code of UNREADABLE) codes.add(code)
    if (!route.older) codes.add('unsupported-media-type')
  }
  for (const code of route.problems ?? []) codes.add(code)
  const responses: Record<string, unknown> = {}
  for (const [status, [description, schema, example]] of Object.entries(route.responses)) {
    responses[status] = schema
      ? { description, content: { 'application/json': media(schema, example) } }
      : { description }
  }
  for (const [status, response] of Object.entries(problemResponses(codes))) responses[status] ??= response
  return {
    tags: [route.tag],
    summary: route.summary,
    description: route.description,
    parameters: [...pathParameters(route.params ?? {}), ...queryParameters(route.query)],
    ...(route.body && {
      requestBody: {
        required: !route.optionalBody,
        content: {
          'application/json': media(...route.body),
          ...(route.ndjson && {
            'application/x-ndjson': { schema: { type: 'string', description: 'One JSON value per line' } },
          }),
        },
      },
    }),
    responses,
  } as DocumentDecoration
}

function media(schema: TSchema, example?: unknown) {
  return example === undefined ? { schema } : { schema, example }
}

function pathParameters(params: Record<string, string | TSchema>) {
  return Object.entries(params).map(([name, given]) => {
    const schema = typeof given === 'string' ? { type: 'string', description: given } : given
    return { name, in: 'path', required: true, description: schema.description, schema }
  })
}

function queryParameters(query: TObject | undefined) {
  return Object.entries(query?.properties ?? {}).map(([name, schema]) => ({
    name,
    in: 'query',
    required: query?.required?.includes(name) ?? false,
    description: schema.description,
    schema,
  }))
}

/** The problems as responses, by status: one entry names all codes of its status. */
function problemResponses(codes: Iterable<ProblemCode>): Record<string, unknown> {
  const byStatus = Object.groupBy(codes, (code) => PROBLEMS[code][0])
  return Object.fromEntries(
    Object.entries(byStatus).map(([status, all = []]) => [
      status,
      {
        description: all.map((code) => `\`${code}\`: ${PROBLEMS[code][1]}`).join('; '),
        content: { 'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } } },
      },
    ]),
  )
}
