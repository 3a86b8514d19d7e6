import { createHash } from 'node:crypto'
import type { CronTimes } from '../runtime/cron.ts'
import type { Missed } from '../task/schedule.ts'

/** What decides when a schedule fires. */
export interface Rule {
  name: string
  cron: CronTimes
  jitterMs: number
  missed: Missed
}

/** A fire that is due later than this after its time was missed: no scheduler was there. In milliseconds. */
const MISSED_AFTER_MS = 60_000
/** Missed fires that `missed: all` makes up for, the latest ones. */
export const MAX_MADE_UP = 100
/** A minute can hold 60 fires that are not missed, and one that its jitter puts off. */
const MOST = MAX_MADE_UP + 62

/** What is to be done about the fires up to now. Instants are milliseconds since 1970. */
export interface Judged {
  /** In their order. */
  fires: number[]
  /** Those that are passed over because they were missed; they all come before `fires`. */
  dropped: { first: number; last: number } | undefined
}

/**
 * When a fire is due: its time, put off by its share of the jitter. The share depends on name and time alone, so that
 * every node names the same, and a fire never comes after the next one's time.
 */
export function dueTime({ name, cron, jitterMs }: Rule, fireAt: number): number {
  if (jitterMs === 0) return fireAt
  const room = Math.min(jitterMs, (cron.next(fireAt) ?? Number.POSITIVE_INFINITY) - fireAt)
  const hash = createHash('sha256')
    .update(`${name}\0${new Date(fireAt).toISOString()}`)
    .digest()
  return fireAt + (hash.readUIntBE(0, 6) % room)
}

/** The first fire after `cursor` and when it is due; undefined when there is none any more. */
export function nextFire(rule: Rule, cursor: number): { fireAt: number; dueAt: number } | undefined {
  const fireAt = rule.cron.next(cursor)
  return fireAt === undefined ? undefined : { fireAt, dueAt: dueTime(rule, fireAt) }
}

/** Judges the fires after `cursor` that are due by `now`, however long ago `cursor` is. */
export function judge(rule: Rule, cursor: number, now: number): Judged {
  const { cron } = rule
  const due: number[] = []
  let more = false
  for (let at = cron.previous(now + 1); at !== undefined && at > cursor; at = cron.previous(at)) {
    more = due.length === MOST
    if (more) break
    due.unshift(at)
  }
  const latest = due.at(-1)
  if (latest !== undefined && dueTime(rule, latest) > now) due.pop()

  const firstOnTime = due.findIndex((fireAt) => dueTime(rule, fireAt) > now - MISSED_AFTER_MS)
  const missed = firstOnTime === -1 ? due : due.slice(0, firstOnTime)
  const onTime = firstOnTime === -1 ? [] : due.slice(firstOnTime)
  const fires = [...madeUpFor(rule.missed, missed, onTime.length > 0), ...onTime]

  const lastDropped = fires[0] === undefined ? due.at(-1) : cron.previous(fires[0])
  const isDropped = more || fires.length < due.length
  const first = cron.next(cursor)
  if (!isDropped || first === undefined || lastDropped === undefined) return { fires, dropped: undefined }
  return { fires, dropped: { first, last: lastDropped } }
}

function madeUpFor(policy: Missed, missed: number[], followed: boolean): number[] {
  switch (policy) {
    case 'skip':
      return []
    case 'last':
      // A fire that is on time makes up for those before it.
      return followed ? [] : missed.slice(-1)
    case 'all':
      return missed.slice(-MAX_MADE_UP)
    default:
      return policy satisfies never
  }
}
