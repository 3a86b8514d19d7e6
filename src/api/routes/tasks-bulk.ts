import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { TaskFilter } from '../../store/tasks/filter.ts'
import { listTasksById } from '../../store/tasks/list.ts'
import { findTasks } from '../../store/tasks/search.ts'
import { checkJsonText, memberSpans } from '../../task/json-text.ts'
import { LIMITS } from '../../task/limits.ts'
import { STATUSES, type Status } from '../../task/status.ts'
import type { Access } from '../access.ts'
import { parseJson, readText, SMALL_BODY_BYTES } from '../body.ts'
import { describe } from '../describe.ts'
import { FilterFields, filterOf, nextOf, placeAfter, refuse } from '../task-filter.ts'
import { checked } from '../validation.ts'
import type { ActionDeps } from './tasks-actions.ts'
import { jsonResponse } from './tasks-response.ts'

/** One call acts on so many tasks at most, in statements of so many. */
const MAX_TASKS = 10_000
const CHUNK = 1_000
const SAMPLE = 10

const ACTIONS = ['cancel', 'replay', 'discard'] as const
type Action = (typeof ACTIONS)[number]

/** The statuses that an action is for; others are passed over. */
const ELIGIBLE: Record<Action, readonly Status[]> = {
  cancel: ['pending', 'queued', 'running', 'retrying'],
  replay: ['dead', 'cancelled'],
  discard: ['succeeded', 'dead', 'cancelled'],
}

const ActionSchema = Type.Object(
  {
    action: Type.Union(
      ACTIONS.map((action) => Type.Literal(action)),
      { description: 'cancel: live tasks; replay: dead and cancelled ones; discard: deletes final ones' },
    ),
    filter: Type.Object(
      {
        status: Type.Optional(
          Type.Array(Type.Union(STATUSES.map((status) => Type.Literal(status))), {
            minItems: 1,
            maxItems: STATUSES.length,
          }),
        ),
        ...FilterFields,
        payload: Type.Optional(Type.Unknown({ description: 'JSON that the payload contains' })),
      },
      { additionalProperties: false, minProperties: 1, description: 'Which tasks; at least one field' },
    ),
    dryRun: Type.Optional(Type.Boolean({ default: false, description: 'Only say what would be done' })),
    after: Type.Optional(Type.String({ maxLength: 512, description: 'The `next` of the call before' })),
  },
  { additionalProperties: false },
)

const ActionResult = Type.Object({
  action: Type.String(),
  dryRun: Type.Boolean(),
  matched: Type.Integer({ description: 'Tasks that the filter names and the action is for; 10,000 a call at most' }),
  outcomes: Type.Record(Type.String(), Type.Integer(), { description: 'How many ended how; empty for a dry run' }),
  sample: Type.Array(
    Type.Object({
      id: Type.String(),
      queue: Type.String(),
      type: Type.Union([Type.String(), Type.Null()]),
      status: Type.String(),
    }),
    { description: 'The newest of them, as they were before' },
  ),
  more: Type.Boolean({ description: 'True when not all were reached: call again with `after`' }),
  next: Type.Union([Type.String(), Type.Null()]),
})

export function taskBulkRoutes(access: Access, deps: ActionDeps) {
  const { pool } = deps
  const act: Record<Action, (ids: string[]) => Promise<{ outcome: string }[]>> = {
    cancel: deps.cancelTasks,
    replay: deps.replayTasks,
    discard: deps.deleteTasks,
  }

  async function run(action: Action, ids: string[]): Promise<Record<string, number>> {
    const outcomes: Record<string, number> = {}
    for (let at = 0; at < ids.length; at += CHUNK) {
      for (const { outcome } of await act[action](ids.slice(at, at + CHUNK))) {
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
      }
    }
    return outcomes
  }

  return new Elysia({ prefix: '/tasks' }).use(access).post(
    '/actions',
    async ({ request }) => {
      const { action, filter, dryRun, after } = await readAction(request)
      const found = await findTasks(pool, filter, MAX_TASKS, placeAfter(after))
      const ids = found.hits.map(({ id }) => id)
      const { rows } = await listTasksById(pool, ids.slice(0, SAMPLE))
      const result: Static<typeof ActionResult> = {
        action,
        dryRun,
        matched: ids.length,
        outcomes: dryRun ? {} : await run(action, ids),
        sample: rows.map(({ id, queue, type, status }) => ({ id, queue, type, status })),
        more: !found.complete,
        next: found.complete ? null : nextOf(found.reached),
      }
      return jsonResponse(JSON.stringify(result))
    },
    {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: 'Tasks',
        summary: 'Cancel, replay or discard many tasks',
        description:
          'Acts on the tasks that the filter names, newest first, up to 10,000 a call in commits of 1,000; `more` says that there are others. Tasks in a status that the action is not for are passed over. Try it with `dryRun` first.',
        body: [ActionSchema, { action: 'replay', filter: { queue: 'emails', status: ['dead'] }, dryRun: true }],
        responses: {
          200: [
            'What was done',
            ActionResult,
            {
              action: 'replay',
              dryRun: true,
              matched: 1,
              outcomes: {},
              sample: [
                { id: '019b7a3e-5c00-7000-8000-000000000001', queue: 'emails', type: 'welcome', status: 'dead' },
              ],
              more: false,
              next: null,
            },
          ],
        },
      }),
    },
  )
}

async function readAction(request: Request) {
  const text = await readText(request, SMALL_BODY_BYTES)
  const { action, filter, dryRun = false, after } = checked(ActionSchema, parseJson(text))
  const { status, payload: _, ...fields } = filter
  const wanted = ELIGIBLE[action].filter((one) => status === undefined || status.includes(one))
  if (wanted.length === 0) {
    refuse('/filter/status', `names no status that "${action}" is for: ${ELIGIBLE[action].join(', ')}`)
  }
  const read: TaskFilter = { ...filterOf(fields, '/filter'), status: wanted, payload: payloadText(text) }
  return { action, filter: read, dryRun, after }
}

/** The payload of the filter as its very text, so that large integers stay what they are. */
function payloadText(text: string): string | undefined {
  const json = checkJsonText(text, { maxDepth: LIMITS.jsonDepth + 2 })
  if (!json.ok) return refuse(json.path, json.reason)
  const body = memberSpans(text)
  const filter = body?.ok ? body.members.get('filter') : undefined
  const fields = filter && memberSpans(text, filter)
  for (const found of [body, fields]) if (found && !found.ok) refuse(found.path, found.reason)
  const span = fields?.ok ? fields.members.get('payload') : undefined
  return span && text.slice(...span)
}
