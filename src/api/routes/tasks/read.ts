import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { Database } from '../../../store/database/database.ts'
import type { TaskFilter } from '../../../store/tasks/read/filter.ts'
import { listTasks, type TaskPage } from '../../../store/tasks/read/list.ts'
import { placesOf, readSituation } from '../../../store/tasks/read/read.ts'
import { SEARCH_BOUNDS, searchTasks } from '../../../store/tasks/read/search.ts'
import type { Access } from '../../access.ts'
import { describe } from '../../openapi/describe.ts'
import { DEFAULT_LIMIT, PageQuery } from '../../page.ts'
import { jsonResponse } from '../../response.ts'
import { containedOf, FilterFields, filterOf, nextOf, placeAfter, statusesOf } from '../../task-filter.ts'
import { LISTED_EXAMPLE, ListedTaskSchema, TASK_EXAMPLE, TaskSchema, taskJson } from '../../task-json.ts'
import { readQuery } from '../../validation.ts'
import { TASK_ID, taskId, taskResponse } from './response.ts'

const ListQuery = Type.Object(
  {
    ...PageQuery,
    status: Type.Optional(
      Type.String({
        maxLength: 128,
        description: 'Only in these statuses, separated by commas',
        examples: ['dead,cancelled'],
      }),
    ),
    ...FilterFields,
    payload: Type.Optional(
      Type.String({
        maxLength: 4096,
        description: `Only with a payload that contains this JSON. Looks at the newest ${SEARCH_BOUNDS.rows} tasks that the other filters name, for ${SEARCH_BOUNDS.ms / 1000} s at most`,
        examples: ['{"invoice":1042}'],
      }),
    ),
  },
  { additionalProperties: false },
)

const TaskList = Type.Object({
  items: Type.Array(ListedTaskSchema),
  next: Type.Union([Type.String(), Type.Null()], { description: 'Give it as `after` to read on; null at the end' }),
  scanned: Type.Optional(Type.Integer({ description: 'Of a payload search: how many tasks were looked at' })),
  complete: Type.Optional(
    Type.Boolean({ description: 'Of a payload search: false when there is more to look at; go on with `next`' }),
  ),
})

export function taskReadRoutes(access: Access, { pool }: { pool: Database['pool'] }) {
  return new Elysia({ prefix: '/tasks' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after, status, payload, ...fields } = readQuery(ListQuery, request)
        const filter: TaskFilter = {
          ...filterOf(fields, ''),
          status: status === undefined ? undefined : statusesOf(status, '/status'),
          payload: payload === undefined ? undefined : containedOf(payload, '/payload'),
        }
        const list = filter.payload === undefined ? listTasks : searchTasks
        return listResponse(await list(pool, filter, limit, placeAfter(after)))
      },
      {
        scope: 'read',
        detail: describe({
          tag: 'Tasks',
          summary: 'List tasks',
          description:
            'Tasks, newest first; all filters must hold. Items are whole but for `logs` and `attempts`, which a task shows when it is read by id. A page ends early when its payloads are large (8 MiB). With `payload` the answer says how far it looked: `scanned` and `complete`.',
          query: ListQuery,
          responses: { 200: ['A page of tasks', TaskList, { items: [LISTED_EXAMPLE], next: null }] },
        }),
      },
    )
    .get('/:id', ({ params }) => taskResponse(pool, taskId(params.id)), {
      scope: 'read',
      detail: describe({
        tag: 'Tasks',
        summary: 'Read a task',
        description: 'The task with its story: attempts, logs, children, and what it waits for.',
        params: TASK_ID,
        responses: { 200: ['The task', TaskSchema, TASK_EXAMPLE] },
        problems: ['not-found'],
      }),
    })

  async function listResponse({ rows, next, search }: TaskPage): Promise<Response> {
    const situation = await readSituation(pool, placesOf(rows))
    const items = rows.map((row) => taskJson(row, situation)).join(',')
    const bounds = search ? `,"scanned":${search.scanned},"complete":${search.complete}` : ''
    return jsonResponse(`{"items":[${items}],"next":${JSON.stringify(nextOf(next))}${bounds}}`)
  }
}
