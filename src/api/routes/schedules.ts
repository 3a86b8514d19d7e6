import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { localTime, parseCron } from '../../runtime/cron.ts'
import { formatDuration } from '../../runtime/duration.ts'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { PeriodicState } from '../../runtime/periodic.ts'
import { nextFire, type Rule } from '../../schedule/judge.ts'
import type { Schedules } from '../../schedule/schedules.ts'
import type { Database } from '../../store/database/database.ts'
import { databaseTime } from '../../store/database/statement.ts'
import { lastFires, listFires, listSchedules, type Schedule, scheduleByName } from '../../store/schedules.ts'
import { parseTime } from '../../submit/parse-time.ts'
import type { TargetChecks } from '../../submit/target-check.ts'
import type { SubmissionRules } from '../../submit/validate.ts'
import { ScheduleNameSchema } from '../../task/schedule.ts'
import type { Access } from '../access.ts'
import { readText } from '../body.ts'
import { describe } from '../openapi/describe.ts'
import { cursorOf, DEFAULT_LIMIT, PageOf, pageOf, placeOf } from '../page.ts'
import { jsonResponse, noContent } from '../response.ts'
import { checked, readQuery } from '../validation.ts'
import { fireJson, jitterMs, readSchedule, scheduleJson } from './schedules/json.ts'
import {
  BODY_EXAMPLE,
  FIRE_EXAMPLE,
  FireSchema,
  FiresQuery,
  ListQuery,
  PREVIEW_EXAMPLE,
  PreviewQuery,
  PreviewSchema,
  SCHEDULE_BYTES,
  SCHEDULE_EXAMPLE,
  ScheduleBody,
  ScheduleSchema,
  SystemWorkSchema,
} from './schedules/schema.ts'

export interface ScheduleDeps extends TargetChecks {
  pool: Database['pool']
  schedules: Schedules
  /** This node's own periodic work. */
  periodic(): PeriodicState[]
  /** The time of the clock that `periodic` tells times by. */
  now(): number
  node(): string
}

const TAG = 'Schedules'
const NAME = { name: ScheduleNameSchema }
const ListSchema = Type.Union([PageOf(ScheduleSchema), PageOf(SystemWorkSchema)])

export function scheduleRoutes(access: Access, deps: ScheduleDeps) {
  const { pool, schedules } = deps
  const { handlerNames, checkUrl, tables } = deps
  const rules: SubmissionRules = { check: checked, handlerNames, checkUrl, tables }
  const shown = async (schedule: Schedule, status = 200, headers = {}) => {
    const last = (await lastFires(pool, [schedule.name])).get(schedule.name)
    return jsonResponse(scheduleJson(schedule, last), status, headers)
  }
  const pausing = async (name: string, paused: boolean) => {
    const schedule = await schedules.setPaused(name, paused)
    if (!schedule) throw unknownSchedule(name)
    return shown(schedule)
  }

  return new Elysia({ prefix: '/schedules' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after, system } = readQuery(ListQuery, request)
        if (system) return { items: await systemWork(deps), next: null }
        const [name] = after === undefined ? [] : placeOf(after, ['string'])
        const page = await listSchedules(pool, limit, name)
        const last = await lastFires(
          pool,
          page.schedules.map((schedule) => schedule.name),
        )
        const items = page.schedules.map((schedule) => scheduleJson(schedule, last.get(schedule.name)))
        const next = page.more ? cursorOf([page.schedules.at(-1)?.name ?? '']) : null
        return jsonResponse(`{"items":[${items.join(',')}],"next":${JSON.stringify(next)}}`)
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'List schedules',
          description:
            "Schedules by name. With `system=true` the answer holds Longshore's own periodic work on the node that answers, as `{ name, description, every, node, running, runs, lastRunAt, nextRunAt, lastError }`.",
          query: ListQuery,
          responses: {
            200: ['A page of schedules', ListSchema, { items: [SCHEDULE_EXAMPLE], next: null }],
          },
        }),
      },
    )
    .get('/:name', async ({ params: { name } }) => shown(await known(deps, name)), {
      scope: 'read',
      detail: describe({
        tag: TAG,
        summary: 'Read a schedule',
        description: 'A schedule, its next fire and its last.',
        params: NAME,
        responses: { 200: ['The schedule', ScheduleSchema, SCHEDULE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
    .put(
      '/:name',
      async ({ request, params }) => {
        const { name } = checked(PathName, { name: params.name })
        const { timing, task, queue } = readSchedule(await readText(request, SCHEDULE_BYTES), rules)
        const { cron, timezone = 'UTC', overlap = 'allow', missed = 'last', jitter = '0ms', paused } = timing
        readCron(cron, timezone)
        const wanted = { cron, timezone, task, queue, overlap, missed, jitter_ms: jitterMs(jitter), paused }
        const { schedule, created } = await schedules.put(name, wanted as Parameters<Schedules['put']>[1])
        const headers = created ? { location: `/api/v1/schedules/${encodeURIComponent(name)}` } : {}
        return shown(schedule, created ? 201 : 200, headers)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Make or replace a schedule',
          description:
            'From now on every fire submits the task. A field that is missing takes its default, but `paused` stays as it is. What is due at this moment is still fired by the old rule; a new cron expression or zone counts from now on.',
          params: NAME,
          body: [ScheduleBody, BODY_EXAMPLE],
          responses: {
            200: ['The schedule was replaced', ScheduleSchema, SCHEDULE_EXAMPLE],
            201: ['The schedule was made', ScheduleSchema, SCHEDULE_EXAMPLE],
          },
          problems: ['unknown-queue', 'unknown-exchange', 'unknown-target', 'unknown-handler'],
        }),
      },
    )
    .delete(
      '/:name',
      async ({ params: { name } }) => {
        if (!(await schedules.remove(name))) throw unknownSchedule(name)
        return noContent()
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Delete a schedule',
          description: 'It fires no more. The tasks that it made stay; its history goes.',
          params: NAME,
          responses: { 204: ['The schedule is gone'] },
          problems: ['not-found'],
        }),
      },
    )
    .post('/:name/pause', ({ params }) => pausing(params.name, true), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Pause a schedule',
        description: 'It fires no more until it is resumed. Pausing twice is no mistake.',
        params: NAME,
        responses: {
          200: [
            'The paused schedule',
            ScheduleSchema,
            { ...SCHEDULE_EXAMPLE, paused: true, nextFireAt: null, nextDueAt: null },
          ],
        },
        problems: ['not-found'],
      }),
    })
    .post('/:name/resume', ({ params }) => pausing(params.name, false), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Resume a schedule',
        description:
          'It fires again, from the next time on: those of its pause are not made up for, whatever `missed` says.',
        params: NAME,
        responses: { 200: ['The schedule', ScheduleSchema, SCHEDULE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
    .post(
      '/:name/run',
      async ({ params: { name } }) => {
        const fire = await schedules.runNow(name)
        if (!fire) throw unknownSchedule(name)
        return jsonResponse(JSON.stringify(fireJson(fire)), 201, { location: `/api/v1/tasks/${fire.taskId}` })
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Run a schedule now',
          description:
            'Submits its task at once, even when it is paused and whatever `overlap` says. The next fires stay as they are.',
          params: NAME,
          responses: {
            201: ['The fire; `Location` names the task', FireSchema, { ...FIRE_EXAMPLE, manual: true }],
          },
          problems: ['not-found', 'unknown-queue', 'unknown-exchange', 'unroutable'],
        }),
      },
    )
    .get(
      '/:name/preview',
      async ({ request, params: { name } }) => {
        const query = readQuery(PreviewQuery, request)
        const from = query.from === undefined ? await databaseTime(pool) : parseTime(query.from)
        if (from === undefined) throw invalid('/from', 'must be an RFC 3339 time with a zone')
        // A rule that is tried out needs no schedule.
        const schedule = query.cron === undefined ? await known(deps, name) : await scheduleByName(pool, name)
        const timezone = query.timezone ?? schedule?.timezone ?? 'UTC'
        const jitter = query.jitter === undefined ? (schedule?.jitterMs ?? 0) : jitterMs(query.jitter)
        const cron = readCron(query.cron ?? schedule?.cron ?? '', timezone)
        return { items: preview({ name, cron, jitterMs: jitter, missed: 'last' }, timezone, from, query.count ?? 10) }
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'Preview the next fires',
          description:
            'The next fires, over changes of the clocks too. `cron`, `timezone` and `jitter` try out another rule; with `cron` the schedule need not exist.',
          params: NAME,
          query: PreviewQuery,
          responses: { 200: ['The next fires', PreviewSchema, PREVIEW_EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
    .get(
      '/:name/fires',
      async ({ request, params: { name } }) => {
        const { limit = DEFAULT_LIMIT, after } = readQuery(FiresQuery, request)
        const [before] = after === undefined ? [] : placeOf(after, ['number'], ([id]) => Number.isSafeInteger(id))
        await known(deps, name)
        const page = pageOf(await listFires(pool, name, limit + 1, before), limit, (fire) => [fire.id])
        return { ...page, items: page.items.map(fireJson) }
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'List the fires of a schedule',
          description:
            'What became of its fires, the latest first: the last 200 are remembered. The tasks carry the schedule and the time in their `idempotencyKey`, but for those that POST .../run made.',
          params: NAME,
          query: FiresQuery,
          responses: { 200: ['A page of fires', PageOf(FireSchema), { items: [FIRE_EXAMPLE], next: null }] },
          problems: ['not-found'],
        }),
      },
    )
}

const PathName = Type.Object(NAME)

function unknownSchedule(name: string): Problem {
  return new Problem('not-found', `There is no schedule "${name.slice(0, 128)}"`)
}

async function known({ pool }: ScheduleDeps, name: string): Promise<Schedule> {
  const schedule = await scheduleByName(pool, name)
  if (!schedule) throw unknownSchedule(name)
  return schedule
}

function readCron(expression: string, timezone: string) {
  const parsed = parseCron(expression, timezone)
  if (!parsed.ok) throw invalid(`/${parsed.field}`, parsed.reason)
  return parsed.cron
}

function preview(rule: Rule, timezone: string, from: number, count: number) {
  const items: Static<typeof PreviewSchema>['items'] = []
  for (let next = nextFire(rule, from); next && items.length < count; next = nextFire(rule, next.fireAt)) {
    items.push({
      fireAt: new Date(next.fireAt).toISOString(),
      dueAt: new Date(next.dueAt).toISOString(),
      local: localTime(next.fireAt, timezone),
    })
  }
  return items
}

/** Local times are told by Postgres's clock, as all others are. */
async function systemWork(deps: ScheduleDeps): Promise<Static<typeof SystemWorkSchema>[]> {
  const offset = (await databaseTime(deps.pool)) - deps.now()
  const time = (at: number | undefined) => (at === undefined ? null : new Date(at + offset).toISOString())
  return deps.periodic().map(({ everyMs, lastAt, nextAt, lastError, ...state }) => ({
    ...state,
    every: formatDuration(everyMs),
    node: deps.node(),
    lastRunAt: time(lastAt),
    nextRunAt: time(nextAt),
    lastError: lastError ?? null,
  }))
}
