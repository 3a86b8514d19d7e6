import type { Pool } from 'pg'
import { prepared, type Queryable, repeated } from '../../database/statement.ts'

/*
 * A task that ends while it is queued leaves its message in the broker. Were its row deleted before that comes, the message
 * would name a task that the ledger does not have, and become a dead letter (PROTOCOL 14). So `publish_no` stays until the
 * message was seen, and the row stays with it, for a day: it may as well be lost.
 */

/** Sets the message of a row aside: it was seen, or is not ours to see. */
export const NO_MESSAGE = 'publisher = null, publish_no = null'

/** Of a row `t` that is final: its message may still come. */
export const MESSAGE_MAY_COME = `t.publish_no is not null and t.finished_at > now() - interval '1 day'`

/** The messages of these final tasks have come. */
export async function noteArrivals(tx: Queryable, ids: string[]): Promise<void> {
  if (ids.length === 0) return
  await prepared(
    tx,
    'note-arrivals',
    `with came as (
       select t.id from tasks t where t.id = any($1::uuid[]) and t.finished_at is not null order by t.id desc for update
     )
     update tasks t set ${NO_MESSAGE} from came where t.id = came.id`,
    [ids],
  )
}

/** The broker has no message any more of what was cancelled in this queue. */
export async function notePurged(pool: Pool, queue: string): Promise<void> {
  await repeated(() =>
    pool.query(
      `with purged as (
         select t.id from tasks t where t.queue = $1 and t.status = 'cancelled' and ${MESSAGE_MAY_COME}
         order by t.id desc for update
       )
       update tasks t set ${NO_MESSAGE} from purged where t.id = purged.id`,
      [queue],
    ),
  )
}
