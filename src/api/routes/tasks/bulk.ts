import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { type Pace, type ReplayOptions, startPace } from '../../../store/tasks/dead-letters/replay.ts'
import type { Place, TaskFilter } from '../../../store/tasks/read/filter.ts'
import { listTasksById } from '../../../store/tasks/read/list.ts'
import { findTasks } from '../../../store/tasks/read/search.ts'
import { parseTime } from '../../../submit/parse-time.ts'
import { checkJsonText, memberSpans } from '../../../task/json/text.ts'
import { LIMITS } from '../../../task/limits.ts'
import { STATUSES, type Status } from '../../../task/status.ts'
import type { Access } from '../../access.ts'
import { parseJson, readText, SMALL_BODY_BYTES } from '../../body.ts'
import { describe } from '../../openapi/describe.ts'
import { cursorOf, placeOf } from '../../page.ts'
import { jsonResponse } from '../../response.ts'
import { FilterFields, filterOf, placeAfter } from '../../task-filter.ts'
import { checked, refuse } from '../../validation.ts'
import type { ActionDeps } from './actions.ts'
import { type ReplayDeps, ReplayQueue } from './replay.ts'

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
    queue: Type.Optional(ReplayQueue),
    ratePerSecond: Type.Optional(
      Type.Number({
        exclusiveMinimum: 0,
        maximum: 10_000,
        description:
          'Of a replay: so many tasks are due each second, one after another, over all calls that follow each other by `after`; by default all at once',
        examples: [50],
      }),
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
  until: Type.Union([Type.String({ format: 'date-time' }), Type.Null()], {
    description: 'Of a replay with `ratePerSecond`: when the last of them is due',
  }),
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

export function taskBulkRoutes(access: Access, deps: ActionDeps & Pick<ReplayDeps, 'replayTasks'>) {
  const { pool } = deps
  const act: Record<Action, (ids: string[], options: ReplayOptions) => Promise<{ outcome: string }[]>> = {
    cancel: (ids) => deps.cancelTasks(ids),
    replay: (ids, options) => deps.replayTasks(ids, options),
    discard: (ids) => deps.deleteTasks(ids),
  }

  async function run(action: Action, ids: string[], options: ReplayOptions): Promise<Record<string, number>> {
    const outcomes: Record<string, number> = {}
    for (let at = 0; at < ids.length; at += CHUNK) {
      for (const { outcome } of await act[action](ids.slice(at, at + CHUNK), options)) {
        outcomes[outcome] = (outcomes[outcome] ?? 0) + 1
      }
    }
    return outcomes
  }

  return new Elysia({ prefix: '/tasks' }).use(access).post(
    '/actions',
    async ({ request }) => {
      const { action, filter, dryRun, after, queue, ratePerSecond } = await readAction(request)
      const place = readPlace(after)
      const pace = ratePerSecond === undefined || dryRun ? undefined : await paceOf(pool, ratePerSecond, place)
      const found = await findTasks(pool, filter, MAX_TASKS, place)
      const ids = found.hits.map(({ id }) => id)
      const { rows } = await listTasksById(pool, ids.slice(0, SAMPLE))
      const result: Static<typeof ActionResult> = {
        action,
        dryRun,
        matched: ids.length,
        outcomes: dryRun ? {} : await run(action, ids, { queue, pace }),
        until: pace && pace.sent > 0 ? lastDue(pace) : null,
        sample: rows.map(({ id, queue, type, status }) => ({ id, queue, type, status })),
        more: !found.complete,
        next: found.complete || !found.reached ? null : nextPlace(found.reached, pace),
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
          'Acts on the tasks that the filter names, newest first, up to 10,000 a call in commits of 1,000; `more` says that there are others. Tasks in a status that the action is not for are passed over. Of a replay, `outcomes` counts as `unreadable` dead letters that have no payload until they are mended; of a discard, as `in-broker` tasks whose message RabbitMQ may still have. Try it with `dryRun` first. A replay can go to another `queue`, and at a `ratePerSecond`: then each task is due in its turn.',
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
              until: null,
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
  const { action, filter, dryRun = false, after, queue, ratePerSecond } = checked(ActionSchema, parseJson(text))
  for (const [field, given] of Object.entries({ queue, ratePerSecond })) {
    if (given !== undefined && action !== 'replay') refuse(`/${field}`, 'only goes with "action": "replay"')
  }
  const { status, payload: _, ...fields } = filter
  const wanted = ELIGIBLE[action].filter((one) => status === undefined || status.includes(one))
  if (wanted.length === 0) {
    refuse('/filter/status', `names no status that "${action}" is for: ${ELIGIBLE[action].join(', ')}`)
  }
  const read: TaskFilter = { ...filterOf(fields, '/filter'), status: wanted, payload: payloadText(text) }
  return { action, filter: read, dryRun, after, queue, ratePerSecond }
}

/** Where a call goes on, and how far the pace of those before it has come. */
type ActionPlace = Place & Partial<Pick<Pace, 'startAt' | 'sent'>>

function readPlace(after: string | undefined): ActionPlace | undefined {
  if (after === undefined || !isPaced(after)) return placeAfter(after)
  const [createdAt, id, startAt, sent] = placeOf(after, ['string', 'string', 'string', 'number'], (parts) => {
    return Number.isSafeInteger(parts[3]) && Number(parts[3]) >= 0 && parseTime(String(parts[2])) !== undefined
  })
  const place = placeAfter(cursorOf([createdAt, id]))
  return place && { ...place, startAt, sent }
}

/** A place with a pace has four parts. */
function isPaced(after: string): boolean {
  try {
    const parts: unknown = JSON.parse(Buffer.from(after, 'base64url').toString('utf8'))
    return Array.isArray(parts) && parts.length === 4
  } catch {
    return false
  }
}

function nextPlace({ createdAt, id }: Place, pace: Pace | undefined): string {
  return cursorOf(pace ? [createdAt, id, pace.startAt, pace.sent] : [createdAt, id])
}

async function paceOf(pool: ActionDeps['pool'], perSecond: number, place: ActionPlace | undefined): Promise<Pace> {
  if (place?.startAt === undefined) return startPace(pool, perSecond)
  return { perSecond, startAt: place.startAt, sent: place.sent ?? 0 }
}

function lastDue({ startAt, sent, perSecond }: Pace): string {
  return new Date(Date.parse(startAt) + ((sent - 1) * 1000) / perSecond).toISOString()
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
