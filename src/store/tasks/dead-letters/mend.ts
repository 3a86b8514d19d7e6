import type { Pool } from 'pg'
import { LIMITS, legible } from '../../../task/limits.ts'
import { prepared } from '../../database/statement.ts'
import { appendedLine } from '../log-line.ts'
import { MENDED_MESSAGE } from './unreadable.ts'

export type Mended = 'mended' | 'not-mendable' | 'unknown'

/**
 * Replaces the payload of a dead or cancelled task, whose own work is not done; a replay delivers the new one. What it was
 * stays in the log, with who changed it, up to the length of a log line. A message that was not readable is one with a payload then.
 */
export async function mendTask(pool: Pool, id: string, payload: string, by: string): Promise<Mended> {
  const [row] = await prepared<{ mended: boolean }>(pool, 'mend-task', MEND, [
    id,
    payload,
    legible(by, LIMITS.logLineBytes),
  ])
  return row === undefined ? 'unknown' : row.mended ? 'mended' : 'not-mendable'
}

/** A character has up to four bytes. */
const KEPT = Math.floor(LIMITS.logLineBytes / 4)

const MEND = `
  with mended as (
    update tasks t
    set payload = $2::json, message = ${MENDED_MESSAGE},
      logs = ${appendedLine(`'payload replaced by ' || $3::text || '; it was: ' || left(t.payload::text, ${KEPT})
        || case when length(t.payload::text) > ${KEPT} then ' [cut]' else '' end`)}
    where t.id = $1 and t.status in ('dead', 'cancelled') and not t.sealed
    returning t.id
  )
  select exists (select from mended) as mended from tasks where id = $1`
