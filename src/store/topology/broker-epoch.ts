import type { Pool } from 'pg'
import { v7 as uuidv7 } from 'uuid'
import { inTransaction, prepared } from '../database/statement.ts'
import { returnEveryQueued } from '../tasks/at-broker/unqueue.ts'

/*
 * A broker that lost everything begins another epoch, and so does a change of brokers (PROTOCOL 11): all that was handed
 * out in the one before is sent again. The setting holds the present epoch by the broker's name, of one broker only.
 */

const SETTING = 'broker-epoch'

/** The present epoch, if it is one of this broker (as nodes name theirs: `in-process`, `rabbitmq:/`). */
export async function readEpoch(pool: Pool, broker: string): Promise<string | undefined> {
  const rows = await prepared<{ epoch: string | null }>(
    pool,
    'read-epoch',
    'select value ->> $2::text as epoch from settings where name = $1',
    [SETTING, broker],
  )
  return rows[0]?.epoch ?? undefined
}

export interface Epoch {
  epoch: string
  /** False when another node had begun it: then nothing was returned. */
  begun: boolean
  /** Tasks that wait again, and their queues. */
  ids: string[]
  queues: string[]
}

/**
 * Begins the epoch after `seen`, if that is still the present one, and returns every queued task to pending in the same
 * transaction: a node that dies in between has begun nothing, and nobody does it twice. What another node has handed
 * out in that very moment is sent twice, and its second message is a duplicate.
 */
export function beginEpoch(pool: Pool, broker: string, seen: string | undefined): Promise<Epoch> {
  return inTransaction(pool, async (tx) => {
    await tx.query(`insert into settings (name, value) values ($1, '{}') on conflict (name) do nothing`, [SETTING])
    const { rows } = await tx.query<{ present: string | null }>(
      'select value ->> $2::text as present from settings where name = $1 for update',
      [SETTING, broker],
    )
    const present = rows[0]?.present ?? undefined
    if (present !== undefined && present !== seen) return { epoch: present, begun: false, ids: [], queues: [] }
    const epoch = uuidv7()
    // The one row replaces all: on its way back to a broker of before, nothing that lies there counts.
    await tx.query('update settings set value = jsonb_build_object($2::text, $3::text) where name = $1', [
      SETTING,
      broker,
      epoch,
    ])
    const { ids, queues } = await returnEveryQueued(tx)
    return { epoch, begun: true, ids, queues }
  })
}
