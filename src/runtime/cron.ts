import { Cron } from 'croner'
import { messageOf } from './errors.ts'

/**
 * When a cron expression fires in its time zone. Instants are milliseconds since 1970 and on whole seconds; no clock is
 * read. Both directions agree on the same instants.
 */
export interface CronTimes {
  /** The first fire after `ms`; undefined when there is none any more. */
  next(ms: number): number | undefined
  /** The last fire before `ms`; undefined when there was none. */
  previous(ms: number): number | undefined
}

export type ParsedCron = { ok: true; cron: CronTimes } | { ok: false; field: 'cron' | 'timezone'; reason: string }

/**
 * Reads five fields (minute, hour, day of month, month, day of week), six with seconds in front, or a nickname such as
 * `@daily`. A day of month and a day of week together mean either of them; `+` before the latter means both.
 *
 * Daylight saving follows Vixie cron (cron(8), "Notes"): where the time of day is spelled out (`30 2 * * *`, `30 2,14 * * *`)
 * a time that the clocks skip fires at the end of the gap, and one that comes twice fires at its first coming. With a
 * wildcard or a step in seconds, minutes or hours (`*\/15 * * * *`) the fires go on in real time: skipped times are skipped, repeated ones repeat.
 */
export function parseCron(expression: string, timezone: string): ParsedCron {
  if (!isTimeZone(timezone)) {
    const reason = `is not a known time zone: take a name of the IANA database, such as UTC or Europe/Berlin`
    return { ok: false, field: 'timezone', reason }
  }
  const fault = (reason: string): ParsedCron => ({ ok: false, field: 'cron', reason })
  // The library would read a date, and fire once.
  if (expression.includes(':')) return fault('must be a cron expression, not a time')
  try {
    const job = new Cron(expression, { mode: '5-or-6-parts', timezone, fixedTimeRule: 'no-wildcard' })
    const cron: CronTimes = {
      next: (ms) => job.nextRun(new Date(ms))?.getTime(),
      previous: (ms) => job.previousRuns(1, new Date(ms))[0]?.getTime(),
    }
    return cron.next(0) === undefined ? fault('never fires: no date fits it') : { ok: true, cron }
  } catch (error) {
    return fault(`is not a cron expression: ${messageOf(error).replace(/^CronPattern: /, '')}`)
  }
}

function isTimeZone(name: string): boolean {
  try {
    new Intl.DateTimeFormat('en', { timeZone: name })
    return true
  } catch {
    return false
  }
}

/** An instant as the clocks of `timezone` show it: RFC 3339 with that zone's offset. */
export function localTime(ms: number, timezone: string): string {
  const format = new Intl.DateTimeFormat('en', {
    timeZone: timezone,
    hourCycle: 'h23',
    ...({ year: 'numeric', month: '2-digit', day: '2-digit' } as const),
    ...({ hour: '2-digit', minute: '2-digit', second: '2-digit', timeZoneName: 'longOffset' } as const),
  })
  const parts = Object.fromEntries(format.formatToParts(ms).map(({ type, value }) => [type, value]))
  const { year = '', month, day, hour, minute, second, timeZoneName = '' } = parts
  const offset = timeZoneName.replace('GMT', '') || '+00:00'
  return `${year.padStart(4, '0')}-${month}-${day}T${hour}:${minute}:${second}${offset}`
}
