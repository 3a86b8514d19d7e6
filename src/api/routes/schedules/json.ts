import type { Static } from '@sinclair/typebox'
import { formatDuration, parseDuration } from '../../../runtime/duration.ts'
import { invalid, Problem } from '../../../runtime/errors.ts'
import { ruleOf } from '../../../schedule/fire.ts'
import { nextFire } from '../../../schedule/judge.ts'
import type { Fire, Schedule } from '../../../store/schedules.ts'
import { faultProblem, newTask, type SubmissionRules } from '../../../submit/validate.ts'
import { checkJsonText, memberSpans } from '../../../task/json/text.ts'
import { LIMITS } from '../../../task/limits.ts'
import { MAX_JITTER_MS, type ScheduleTiming, ScheduleTimingSchema } from '../../../task/schedule.ts'
import { type Target, withoutSecret } from '../../../task/target/target.ts'
import { unstorable } from '../../validation.ts'
import { type FireSchema, NOT_FOR_SCHEDULES } from './schema.ts'

export interface ReadSchedule {
  timing: ScheduleTiming
  /** The submission's text. */
  task: string
  queue: string
}

/** Reads the body of PUT from its text: the submission is checked as POST /tasks does, and kept as it came. Throws Problem. */
export function readSchedule(text: string, rules: SubmissionRules): ReadSchedule {
  const checked = checkJsonText(text, { maxDepth: LIMITS.jsonDepth + 2 })
  if (!checked.ok) throw faultProblem(checked)
  const found = memberSpans(text)
  if (!found) throw invalid('', 'must be an object')
  if (!found.ok) throw faultProblem(found)
  const value: Record<string, unknown> = Object.create(null)
  let task: string | undefined
  for (const [name, [start, end]] of found.members) {
    if (name === 'task') task = text.slice(start, end)
    else value[name] = JSON.parse(text.slice(start, end))
  }
  const timing = rules.check(ScheduleTimingSchema, value)
  const errors = unstorable(timing)
  if (errors.length > 0) throw new Problem('validation', 'The body holds text that cannot be stored', errors)
  if (task === undefined) throw invalid('/task', 'is required')
  return { timing, task, queue: readTask(task, rules) }
}

/** Checks the submission; gives its queue. */
function readTask(task: string, rules: SubmissionRules): string {
  const found = memberSpans(task)
  if (found?.ok) {
    for (const [name, reason] of Object.entries(NOT_FOR_SCHEDULES)) {
      if (found.members.has(name)) throw invalid(`/task/${name}`, reason)
    }
  }
  try {
    return newTask(task, rules, { operate: true }).queue
  } catch (error) {
    if (!(error instanceof Problem)) throw error
    const errors = error.errors.map(({ path, message }) => ({ path: `/task${path}`, message }))
    throw new Problem(error.code, `/task: ${error.detail}`, errors)
  }
}

export function jitterMs(jitter: string): number {
  const ms = parseDuration(jitter) ?? 0
  if (ms > MAX_JITTER_MS) throw invalid('/jitter', 'may be 1d at most')
  return ms
}

/** The schedule as JSON text: the payload of its task goes out as it came. */
export function scheduleJson(schedule: Schedule, last: Fire | undefined): string {
  const { name, cron, timezone, overlap, missed, paused, createdAt, updatedAt } = schedule
  const before = { name, cron, timezone }
  const after = {
    ...{ overlap, missed, jitter: formatDuration(schedule.jitterMs), paused, ...nextOf(schedule) },
    ...{ lastFire: last ? fireJson(last) : null, error: schedule.error, createdAt, updatedAt },
  }
  return `${JSON.stringify(before).slice(0, -1)},"task":${shownTask(schedule.task)},${JSON.stringify(after).slice(1)}`
}

export function fireJson({ id: _, ...fire }: Fire): Static<typeof FireSchema> {
  return fire
}

function nextOf(schedule: Schedule): { nextFireAt: string | null; nextDueAt: string | null } {
  const none = { nextFireAt: null, nextDueAt: null }
  if (schedule.paused) return none
  try {
    const next = nextFire(ruleOf(schedule), Date.parse(schedule.cursor))
    if (!next) return none
    return { nextFireAt: new Date(next.fireAt).toISOString(), nextDueAt: new Date(next.dueAt).toISOString() }
  } catch {
    // Its zone is not known to this node: `error` says so once it was to fire.
    return none
  }
}

/** The submission's text with the secrets of its target hidden. */
function shownTask(task: string): string {
  const found = memberSpans(task)
  if (!found?.ok) return task
  const members = [...found.members].map(([name, [start, end]]) => {
    const text = task.slice(start, end)
    const shown = name === 'target' ? JSON.stringify(withoutSecret(JSON.parse(text) as Target)) : text
    return `${JSON.stringify(name)}:${shown}`
  })
  return `{${members.join(',')}}`
}
