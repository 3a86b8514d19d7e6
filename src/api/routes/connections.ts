import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { ReadConnections } from '../../broker/connections.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Database } from '../../store/database/database.ts'
import { livingNodes, type NodeView } from '../../store/node-list.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { Nullable } from '../openapi/schema-words.ts'
import { DEFAULT_LIMIT, PageOf, PageQuery, pageOf, placeOf } from '../page.ts'
import { readQuery } from '../validation.ts'

export interface ConnectionDeps {
  db: Database['db']
  /** Asks the broker itself, where `RABBITMQ_MANAGEMENT_URL` says. */
  managementConnections?: ReadConnections | undefined
}

const ListQuery = Type.Object(PageQuery, { additionalProperties: false })

const ConnectionSchema = Type.Object({
  name: Type.String({ description: "What its client calls it, or the broker's name for it" }),
  ours: Type.Boolean({ description: 'A node of Longshore has it' }),
  node: Nullable(Type.String({ format: 'uuid', description: 'The node that has it' })),
  nodeName: Nullable(Type.String()),
  purpose: Type.Union([Type.Literal('publish'), Type.Literal('consume'), Type.Null()]),
  host: Nullable(Type.String({ description: 'The host of RabbitMQ that it goes to' })),
  since: Nullable(Type.String({ format: 'date-time' })),
  peer: Nullable(Type.String({ description: 'Address and port of the client; from the management API' })),
  user: Nullable(Type.String({ description: 'From the management API' })),
  client: Nullable(Type.String({ description: "The client's library; from the management API" })),
  channels: Type.Union([Type.Integer(), Type.Null()], { description: 'From the management API' }),
})
export type Connection = Static<typeof ConnectionSchema>

const ConnectionList = Type.Object({
  ...PageOf(ConnectionSchema).properties,
  complete: Type.Boolean({ description: 'All connections of the broker are shown, not only those of Longshore' }),
  reason: Nullable(Type.String({ description: 'Why they are not' })),
})

const EXAMPLE: Connection = {
  name: 'longshore worker-1 publish',
  ours: true,
  node: '019b7a3e-5c00-7000-8000-000000000003',
  nodeName: 'worker-1',
  purpose: 'publish',
  host: 'rabbitmq.example.com:5672',
  since: '2026-01-01T00:00:00.000Z',
  peer: '10.0.0.7:51234',
  user: 'longshore',
  client: 'amqp-client.js 4.1.1',
  channels: 2,
}

/** Who is connected to the broker. */
export function connectionRoutes(access: Access, deps: ConnectionDeps) {
  return new Elysia({ prefix: '/connections' }).use(access).get(
    '/',
    async ({ request }) => {
      const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
      const [from] = after === undefined ? [] : placeOf(after, ['string'])
      const { connections, reason } = await allConnections(deps)
      const rest = connections.filter((one) => from === undefined || placeOfConnection(one) > from)
      return { ...pageOf(rest, limit, (one) => [placeOfConnection(one)]), complete: reason === null, reason }
    },
    {
      scope: 'read',
      detail: describe({
        tag: 'Nodes',
        summary: 'List connections to the broker',
        description:
          'The connections of all living nodes, as of their last beats, by name. With `RABBITMQ_MANAGEMENT_URL` all connections of the broker, those of foreign producers and consumers, too. The broker inside the process has none.',
        query: ListQuery,
        responses: {
          200: [
            'A page of connections',
            ConnectionList,
            { items: [EXAMPLE], next: null, complete: true, reason: null },
          ],
        },
      }),
    },
  )
}

/** Those of Longshore's nodes and, where the broker itself can be asked, all others; `reason` says why they are not all. */
export async function allConnections({ db, managementConnections }: ConnectionDeps) {
  const nodes = await livingNodes(db)
  const ours = nodes.flatMap(connectionsOf)
  const { connections, reason } = await managed(nodes, managementConnections)
  const named = new Map(ours.map((one) => [one.name, one]))
  const seen = new Set(connections.map(({ name }) => name))
  const all = [
    ...connections.map((one) => ({ ...(named.get(one.name) ?? FOREIGN), ...one })),
    // Opened since the broker was asked, or of a vhost that it may not show.
    ...ours.filter(({ name }) => !seen.has(name)),
  ]
  return { reason, connections: all.sort((a, b) => (placeOfConnection(a) < placeOfConnection(b) ? -1 : 1)) }
}

/** What the broker tells, and why that is not all of its connections. */
async function managed(nodes: NodeView[], read: ReadConnections | undefined) {
  if (nodes.every(({ state }) => state.broker === 'in-process')) return { connections: [], reason: null }
  if (!read) {
    return {
      connections: [],
      reason: 'RABBITMQ_MANAGEMENT_URL is not set: only the connections of Longshore are known',
    }
  }
  try {
    return await read()
  } catch (error) {
    return { connections: [], reason: `The management API of RabbitMQ cannot be asked: ${messageOf(error)}` }
  }
}

const UNMANAGED = { peer: null, user: null, client: null, channels: null }
const FOREIGN = { ours: false, node: null, nodeName: null, purpose: null, host: null }

function connectionsOf({ id, name: nodeName, state }: NodeView): Connection[] {
  return (state.link?.connections ?? []).map((one) => ({ ...one, ours: true, node: id, nodeName, ...UNMANAGED }))
}

/** Foreign clients may share a name, but no address. */
export function placeOfConnection({ name, peer }: Pick<Connection, 'name' | 'peer'>): string {
  return `${name} ${peer ?? ''}`
}
