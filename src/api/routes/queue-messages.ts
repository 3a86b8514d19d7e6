import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { Database } from '../../store/database.ts'
import { queueByName, type WaitingTask, waitingTasks } from '../../store/queues.ts'
import { parseTime } from '../../submit/parse-time.ts'
import { QueueNameSchema } from '../../task/queue.ts'
import type { Access } from '../access.ts'
import { describe } from '../describe.ts'
import { cursorOf, DEFAULT_LIMIT, PageOf, PageQuery, placeOf, uuidIn } from '../page.ts'
import { readQuery } from '../validation.ts'
import { unknownQueue } from './queues.ts'
import { jsonResponse } from './tasks-response.ts'

const ListQuery = Type.Object(PageQuery, { additionalProperties: false })

const MessageSchema = Type.Object({
  id: Type.String({ format: 'uuid', description: "The task's id" }),
  type: Type.Union([Type.String(), Type.Null()]),
  status: Type.Union([Type.Literal('pending'), Type.Literal('retrying')]),
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

/** The tasks that wait in a queue, as the dispatcher will take them. */
export function queueMessageRoutes(access: Access, { db }: { db: Database['db'] }) {
  return new Elysia({ prefix: '/queues' }).use(access).get(
    '/:name/messages',
    async ({ request, params: { name } }) => {
      const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
      if (!(await queueByName(db, name))) throw unknownQueue(name)
      const { tasks, more } = await waitingTasks(db, name, limit, after === undefined ? undefined : placeAfter(after))
      const last = tasks.at(-1)
      const next = more && last ? cursorOf([last.priority, last.dueKey, last.id]) : null
      const body = `{"items":[${tasks.map(messageJson).join(',')}],"next":${JSON.stringify(next)}}`
      return jsonResponse(body)
    },
    {
      scope: 'read',
      detail: describe({
        tag: 'Queues',
        summary: 'Look at what waits in a queue',
        description:
          'Waiting tasks in the order in which they will be taken: priority, then due time. Read from the ledger, so looking changes nothing. A page ends early when its payloads are large.',
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

function placeAfter(after: string) {
  const [priority, dueKey, id] = placeOf(after, ['number', 'string', 'string'], ([p, due, uuid]) => {
    return (
      Number.isInteger(p) &&
      Number(p) >= 0 &&
      Number(p) <= 9 &&
      isDueKey(String(due)) &&
      uuidIn(String(uuid)) !== undefined
    )
  })
  return { priority, dueKey, id }
}

/** The payload goes out as the text that came in. */
function messageJson({ payload, dueKey: _, ...task }: WaitingTask): string {
  return `${JSON.stringify(task).slice(0, -1)},"payload":${payload}}`
}
