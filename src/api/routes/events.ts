import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { cutOn } from '../../runtime/serve.ts'
import { STATUSES } from '../../task/status.ts'
import type { Access } from '../access.ts'
import { type EventFeed, HEARTBEAT_MS, MAX_EVENT_CLIENTS } from '../events/feed.ts'
import { EVENT_KINDS, type EventFilter, type EventKind } from '../events/filter.ts'
import { describe } from '../openapi/describe.ts'
import { FilterFields, filterOf, statusesOf } from '../task-filter.ts'
import { readQuery, refuse } from '../validation.ts'

const { createdAfter: _, ...Fields } = FilterFields

const EventsQuery = Type.Object(
  {
    kinds: Type.Optional(
      Type.String({
        maxLength: 64,
        description: `Only these, separated by commas: ${EVENT_KINDS.join(', ')}; all by default`,
        examples: ['task,queue'],
      }),
    ),
    status: Type.Optional(
      Type.String({
        maxLength: 128,
        description: `Only changes into these, separated by commas: ${STATUSES.join(', ')}`,
        examples: ['dead'],
      }),
    ),
    source: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 128,
        description: 'Only files of the source with this name; tasks, queues and nodes go by the other filters',
      }),
    ),
    ...Fields,
  },
  { additionalProperties: false },
)

export interface EventDeps {
  events: EventFeed
}

const HEADERS = {
  'content-type': 'text/event-stream; charset=utf-8',
  'cache-control': 'no-cache, no-store',
  // A proxy that gathers the answer would keep it for ever.
  'x-accel-buffering': 'no',
}

export function eventRoutes(access: Access, { events }: EventDeps) {
  return new Elysia({ prefix: '/events' }).use(access).get(
    '/',
    async ({ request }) => {
      const filter = eventFilterOf(readQuery(EventsQuery, request))
      // Nobody would read its stream, or end it.
      if (request.method === 'HEAD') return new Response(null, { headers: HEADERS })
      const lastEventId = request.headers.get('last-event-id') ?? undefined
      const { stream, cutSignal } = await events.open(filter, lastEventId)
      return cutOn(cutSignal, new Response(stream, { headers: HEADERS }))
    },
    {
      scope: 'read',
      detail: describe({
        tag: 'Events',
        summary: 'Listen to what happens',
        description: `Server-sent events of the whole cluster. \`task\`: a task as it is after a change (id, queue, type, status, attempt, parentId, origin); of several changes within 100 ms the last is told. \`queue\`, \`node\` and \`file\`: figures of a queue, the state of a node, and a file on its way with its progress, whole at first and then whenever they differ. \`reset\`: something may have been missed, read again. \`Last-Event-ID\` goes on from there, or begins with \`reset\`. A comment comes every ${HEARTBEAT_MS / 1000} s. At most ${MAX_EVENT_CLIENTS} clients a node; one that does not read is cut.`,
        query: EventsQuery,
        responses: { 200: ['A stream of events (`text/event-stream`), without end'] },
        problems: ['overloaded', 'shutting-down'],
      }),
    },
  )
}

function eventFilterOf({ kinds, status, source, ...fields }: Static<typeof EventsQuery>): EventFilter {
  const { queue, type, parentId, origin } = filterOf(fields, '')
  return {
    kinds: kinds === undefined ? undefined : kindsOf(kinds),
    status: status === undefined ? undefined : statusesOf(status, '/status'),
    queue,
    type,
    parentId,
    origin,
    source,
  }
}

function kindsOf(list: string): EventKind[] {
  const words = list.split(',').map((word) => word.trim())
  const known = EVENT_KINDS.filter((kind) => words.includes(kind))
  if (words.some((word) => !(EVENT_KINDS as readonly string[]).includes(word))) {
    refuse('/kinds', `must be of ${EVENT_KINDS.join(', ')}, separated by commas`)
  }
  return known
}
