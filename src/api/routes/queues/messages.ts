import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { Database } from '../../../store/database/database.ts'
import { type WaitingPlace, type WaitingTask, waitingTasks } from '../../../store/topology/queue-line.ts'
import { queueByName } from '../../../store/topology/queues.ts'
import { parseTime } from '../../../submit/parse-time.ts'
import { QueueNameSchema } from '../../../task/topology/queue.ts'
import type { Access } from '../../access.ts'
import { describe } from '../../openapi/describe.ts'
import { cursorOf, DEFAULT_LIMIT, PageOf, PageQuery, placeOf, uuidIn } from '../../page.ts'
import { jsonResponse } from '../../response.ts'
import { readQuery } from '../../validation.ts'
import { unknownQueue } from '../queues.ts'

const ListQuery = Type.Object(PageQuery, { additionalProperties: false })

const WAITING = ['queued', 'pending', 'retrying'] as const

const MessageSchema = Type.Object({
  id: Type.String({ format: 'uuid', description: "The task's id" }),
  type: Type.Union([Type.String(), Type.Null()]),
  status: Type.Union(
    WAITING.map((status) => Type.Literal(status)),
    { description: 'queued: RabbitMQ has it' },
  ),
  priority: Type.Integer({ minimum: 0, maximum: 9 }),
  dueAt: Type.String({ format: 'date-time' }),
  attempt: Type.Integer({ description: 'Attempts so far' }),
  failures: Type.Integer(),
  parentId: Type.Union([Type.String({ format: 'uuid' }), Type.Null()]),
  createdAt: Type.String({ format: 'date-time' }),
  payload: Type.Any({ description: 'The JSON that was submitted' }),
})

const EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000001',
  type: 'welcome',
  status: 'pending',
  priority: 0,
  dueAt: '2026-01-01T00:00:00.000Z',
  attempt: 0,
  failures: 0,
  parentId: null,
  createdAt: '2026-01-01T00:00:00.000Z',
  payload: { to: 'ada@example.com' },
}

/** The tasks that wait in a queue, as they will be taken. */
export function queueMessageRoutes(access: Access, { db }: { db: Database['db'] }) {
  return new Elysia({ prefix: '/queues' }).use(access).get(
    '/:name/messages',
    async ({ request, params: { name } }) => {
      const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
      if (!(await queueByName(db, name))) throw unknownQueue(name)
      const { tasks, more } = await waitingTasks(db, name, limit, after === undefined ? undefined : placeAfter(after))
      const last = tasks.at(-1)
      const next = more && last ? cursorOf([last.status, last.priority, last.dueKey, last.id]) : null
      const body = `{"items":[${tasks.map(messageJson).join(',')}],"next":${JSON.stringify(next)}}`
      return jsonResponse(body)
    },
    {
      scope: 'read',
      detail: describe({
        tag: 'Queues',
        summary: 'Look at what waits in a queue',
        description:
          'Tasks that no worker has yet, in the order in which they will be taken: what RabbitMQ has, then what waits in Postgres, each by priority, then due time. Read from the ledger, so looking changes nothing. A page ends early when its payloads are large.',
        params: { name: QueueNameSchema },
        query: ListQuery,
        responses: { 200: ['A page of waiting tasks', PageOf(MessageSchema), { items: [EXAMPLE], next: null }] },
        problems: ['not-found'],
      }),
    },
  )
}

/** As Postgres writes a time; a due time lies ten years ahead at most. */
const DUE_KEY = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(\.\d{1,6})?)\+00$/

function isDueKey(text: string): boolean {
  const [, day, time] = DUE_KEY.exec(text) ?? []
  const ms = parseTime(`${day}T${time}Z`)
  return ms !== undefined && ms > 0
}

function placeAfter(after: string): WaitingPlace {
  const [status, priority, dueKey, id] = placeOf(
    after,
    ['string', 'number', 'string', 'string'],
    ([word, p, due, uuid]) => {
      return (
        (WAITING as readonly unknown[]).includes(word) &&
        Number.isInteger(p) &&
        Number(p) >= 0 &&
        Number(p) <= 9 &&
        isDueKey(String(due)) &&
        uuidIn(String(uuid)) !== undefined
      )
    },
  )
  return { status: status as WaitingPlace['status'], priority, dueKey, id }
}

/** The payload goes out as the text that came in. */
function messageJson({ payload, dueKey: _, ...task }: WaitingTask): string {
  return `${JSON.stringify(task).slice(0, -1)},"payload":${payload}}`
}
