import type { StrayMessage } from '../../../task/ledger.ts'

/*
 * A task whose message had no payload says so in the first field of that message, where it is read and cut off as text: the
 * rest may be large, and may hold what Postgres keeps as JSON and cannot read, such as NUL in a header.
 */

const MARK = '{"unreadable":true,'

/** The message as JSON text, its mark first. */
export function messageText({ unreadable, ...message }: StrayMessage): string {
  return JSON.stringify({ ...(unreadable && { unreadable }), ...message })
}

/** Of a row `t`: nobody has given it a payload yet. */
export const IS_UNREADABLE = `coalesce(left(t.message::text, ${MARK.length}) = '${MARK}', false)`

/** The message of a row `t` that has a payload now. */
export const MENDED_MESSAGE = `case when ${IS_UNREADABLE}
  then ('{' || substr(t.message::text, ${MARK.length + 1}))::json else t.message end`
