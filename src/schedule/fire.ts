import { createHash } from 'node:crypto'
import { v7 as uuidv7 } from 'uuid'
import { parseCron } from '../runtime/cron.ts'
import { Problem } from '../runtime/errors.ts'
import type { Transaction } from '../store/database/statement.ts'
import {
  advanceSchedule,
  hasLiveTask,
  type NewFire,
  recordFires,
  type Schedule,
  type Standing,
} from '../store/schedules.ts'
import { insertEach } from '../store/tasks/insert/insert.ts'
import { type Addressing, addWoken, type Woken } from '../store/tasks/insert/insert-addressed.ts'
import type { Refused } from '../store/tasks/insert/insert-rows.ts'
import type { NewTask } from '../task/task.ts'
import { judge, nextFire, type Rule } from './judge.ts'

export interface FireDeps {
  /** The node that counts the tasks that it accepts. */
  node(): string
  /** Reads a schedule's submission as the one door does. Throws Problem. */
  read(task: string): NewTask
  /** How tasks go that are addressed to an exchange. */
  addressing: Addressing
}

/** How often a schedule whose fires queue up looks whether the task before is final. */
const HOLD_MS = 1_000

/** A schedule's rule with its cron expression read; throws when the expression or the zone is not known (any more). */
export function ruleOf(schedule: Pick<Schedule, 'name' | 'cron' | 'timezone' | 'jitterMs' | 'missed'>): Rule {
  const { name, cron: expression, timezone, jitterMs, missed } = schedule
  const parsed = parseCron(expression, timezone)
  if (!parsed.ok) throw new Error(`${parsed.field} ${parsed.reason}`)
  return { name, cron: parsed.cron, jitterMs, missed }
}

/** Where a schedule stands whose fires up to `cursor` are judged. */
export function standingAt(rule: Rule, cursor: number): Standing {
  return { cursor, wakeAt: nextFire(rule, cursor)?.dueAt }
}

/**
 * Fires what is due of a locked schedule by Postgres's time `now`, and moves it on, in the caller's transaction
 * (PROTOCOL 24): whatever ends it, either the tasks are there and the cursor is past their fires, or neither is. Throws when
 * the task cannot be submitted for now (its queue, its exchange or every binding is gone): then the fires wait.
 */
export async function fireDue(tx: Transaction, schedule: Schedule, now: number, deps: FireDeps): Promise<Woken> {
  const { name, overlap, missed } = schedule
  const rule = ruleOf(schedule)
  const cursor = Date.parse(schedule.cursor)
  const queues = overlap === 'skip' && missed === 'all'
  const busy = overlap === 'skip' && (await hasLiveTask(tx, name))
  if (busy && queues) {
    await advanceSchedule(tx, name, { cursor, wakeAt: now + HOLD_MS })
    return new Map()
  }
  const { fires, dropped } = judge(rule, cursor, now)
  const free = overlap === 'allow' ? fires.length : busy ? 0 : 1
  const taken = fires.slice(0, free)
  const passed = fires.slice(free)
  const { records, woken } = await submitFires(tx, schedule, taken, deps)
  if (dropped) records.unshift(passedOver(dropped.first, 'missed', untilText(dropped)))
  const overlapping = 'The task of an earlier fire is not final yet'
  if (!queues) records.push(...passed.map((fireAt) => passedOver(fireAt, 'overlap', overlapping)))
  if (records.length > 0) await recordFires(tx, name, records)

  const judged = queues ? taken.at(-1) : fires.at(-1)
  const standing = standingAt(rule, judged ?? dropped?.last ?? cursor)
  const held = queues && passed.length > 0
  await advanceSchedule(tx, name, held ? { ...standing, wakeAt: now + HOLD_MS } : standing)
  return woken
}

/** Fires a locked schedule once, whatever its cron expression says and even when it is paused. */
export async function fireNow(
  tx: Transaction,
  schedule: Schedule,
  now: number,
  deps: FireDeps,
): Promise<{ fire: NewFire; woken: Woken }> {
  const { records, woken } = await insertFires(tx, [now], [{ ...newTask(schedule, deps), id: uuidv7() }], deps, true)
  return { fire: records[0] as NewFire, woken }
}

/** Submits a task a fire; schedule and fire time are its idempotency key, a second belt behind the schedule's lock. */
async function submitFires(
  tx: Transaction,
  schedule: Schedule,
  fires: number[],
  deps: FireDeps,
): Promise<{ records: NewFire[]; woken: Woken }> {
  if (fires.length === 0) return { records: [], woken: new Map() }
  const template = newTask(schedule, deps)
  const tasks = fires.map((fireAt): NewTask => {
    const idempotencyKey = `schedule:${schedule.name}:${new Date(fireAt).toISOString()}`
    const fingerprint = createHash('sha256').update(idempotencyKey).digest('hex')
    return { ...template, id: uuidv7(), idempotencyKey, fingerprint }
  })
  return insertFires(tx, fires, tasks, deps, false)
}

function newTask(schedule: Schedule, deps: FireDeps): NewTask {
  return { ...deps.read(schedule.task), origin: 'schedule' }
}

async function insertFires(tx: Transaction, fires: number[], tasks: NewTask[], deps: FireDeps, manual: boolean) {
  const { answers } = await insertEach(tx, deps.node(), tasks, deps.addressing)
  const woken: Woken = new Map()
  const records = tasks.map((task, index): NewFire => {
    const base = { fireAt: new Date(fires[index] as number).toISOString(), manual }
    const answer = answers.get(task.id)
    switch (answer?.kind) {
      case 'created':
        addWoken(woken, task, answer)
        return { ...base, outcome: 'submitted', taskId: task.id, detail: null }
      case 'existing':
        return { ...base, outcome: 'submitted', taskId: answer.id, detail: 'The task was there already' }
      case 'refused':
        // Where it goes can come back: the fire waits for it, and is not lost.
        if (GOES_NOWHERE.has(answer.code)) throw goesNowhere(answer)
        return { ...base, outcome: 'refused', taskId: null, detail: answer.detail }
      default:
        throw new Error(`The fire of ${base.fireAt} was not answered`)
    }
  })
  return { records, woken }
}

const GOES_NOWHERE: ReadonlySet<Refused['code']> = new Set(['unknown-queue', 'unknown-exchange', 'unroutable'])

/** The problem of a schedule whose task has nowhere to go. */
export function goesNowhere({ code, field, detail }: Pick<Refused, 'code' | 'field' | 'detail'>): Problem {
  return new Problem(code, detail, [{ path: `/task/${field}`, message: detail }])
}

function passedOver(fireAt: number, outcome: 'missed' | 'overlap', detail: string): NewFire {
  return { fireAt: new Date(fireAt).toISOString(), outcome, manual: false, taskId: null, detail }
}

function untilText({ first, last }: { first: number; last: number }): string {
  if (first === last) return 'No scheduler ran at its time'
  return `No scheduler ran at its time, nor at the others until ${new Date(last).toISOString()}`
}
