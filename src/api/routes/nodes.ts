import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { Database } from '../../store/database/database.ts'
import { listNodes } from '../../store/node-list.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { DEFAULT_LIMIT, PageOf, PageQuery, pageOf, placeOf, uuidIn } from '../page.ts'
import { readQuery } from '../validation.ts'

const ListQuery = Type.Object(PageQuery, { additionalProperties: false })

const NodeSchema = Type.Object({
  id: Type.String({ format: 'uuid', description: 'New at every start of a process' }),
  name: Type.String(),
  version: Type.String(),
  roles: Type.Array(Type.String()),
  startedAt: Type.String({ format: 'date-time' }),
  beatAt: Type.String({ format: 'date-time', description: 'Its last beat; a node beats every 5 s' }),
  status: Type.Union([Type.Literal('alive'), Type.Literal('dead'), Type.Literal('left')], {
    description: 'dead: silent for 15 s, its tasks go to others; left: it stopped in order',
  }),
  broker: Type.String({ description: 'Kind and vhost, such as rabbitmq:/; the same on all nodes that live' }),
  state: Type.Any({
    description:
      'As of its last beat: its consumers, in `link`, how it stands with RabbitMQ (up, down or blocked, since when, why, where it confirms no messages, and its connections), and, in `refused`, the queues and exchanges that RabbitMQ does not let it publish to',
  }),
})

const EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000003',
  name: 'worker-1',
  version: '0.1.0',
  roles: ['api', 'dispatcher', 'scheduler', 'worker'],
  startedAt: '2026-01-01T00:00:00.000Z',
  beatAt: '2026-01-01T00:10:00.000Z',
  status: 'alive',
  broker: 'rabbitmq:/',
  state: {
    broker: 'rabbitmq',
    link: {
      status: 'up',
      since: '2026-01-01T00:00:00.000Z',
      reason: null,
      connections: [
        {
          name: 'longshore worker-1 publish',
          host: 'rabbitmq.example.com:5672',
          purpose: 'publish',
          since: '2026-01-01T00:00:00.000Z',
        },
      ],
    },
    consumers: [
      {
        id: '019b7a3e-5c00-7000-8000-000000000002',
        queue: 'emails',
        concurrency: 20,
        running: 3,
        buffered: 5,
        rate: 12.5,
      },
    ],
  },
}

export function nodeRoutes(access: Access, { db }: { db: Database['db'] }) {
  return new Elysia({ prefix: '/nodes' }).use(access).get(
    '/',
    async ({ request }) => {
      const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
      const [id] = after === undefined ? [] : placeOf(after, ['string'], ([text]) => uuidIn(String(text)) !== undefined)
      return pageOf(await listNodes(db, limit + 1, id), limit, (node) => [node.id])
    },
    {
      scope: 'read',
      detail: describe({
        tag: 'Nodes',
        summary: 'List nodes',
        description:
          'The processes that share this ledger, the newest first, and what each was doing at its last beat.',
        query: ListQuery,
        responses: { 200: ['A page of nodes', PageOf(NodeSchema), { items: [EXAMPLE], next: null }] },
      }),
    },
  )
}
