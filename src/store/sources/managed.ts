import type { Pool } from 'pg'
import { inTransaction, type Queryable } from '../database/statement.ts'
import { type NextPoll, timeOf } from './change.ts'
import { SOURCE_COLUMNS, type SourceRow, type StoredSource, storedSource } from './read.ts'

/** What keeps sources in step with a list. */
export const REGISTRY = 'registry'

const SETTING = 'source-registry'

/** How the last look at the list went. Times are RFC 3339. */
export interface RegistryState {
  nextAt: string
  lastAt: string | null
  /** The last time that the list could be read. */
  lastGoodAt: string | null
  /** Why it could not; null when it could. Holds nothing of the list. */
  error: string | null
  /** Connections of it that could not be used, and why. */
  refused: string[]
  sources: number
}

/** Undefined while nobody has ever looked. */
export async function registryState(pool: Pool): Promise<RegistryState | undefined> {
  const { rows } = await pool.query<{ value: RegistryState }>('select value from settings where name = $1', [SETTING])
  return rows[0]?.value
}

/**
 * Takes the turn to look at the list when its time has come by Postgres's clock, and moves it on to what `next` says: one node
 * gets each turn. Otherwise gives in how many milliseconds it comes.
 */
export async function takeRegistryTurn(
  pool: Pool,
  next: (now: number) => NextPoll,
): Promise<{ taken: true } | { taken: false; delayMs: number }> {
  return inTransaction(pool, async (tx) => {
    await tx.query(`insert into settings (name, value) values ($1, '{}') on conflict (name) do nothing`, [SETTING])
    const { rows } = await tx.query<{ now: string; delayMs: number | null }>(
      `select clock_timestamp() as now,
         (extract(epoch from (value ->> 'nextAt')::timestamptz - clock_timestamp()) * 1000)::float8 as "delayMs"
       from settings where name = $1 for update`,
      [SETTING],
    )
    const { now = '', delayMs = null } = rows[0] ?? {}
    if (delayMs !== null && delayMs > 0) return { taken: false, delayMs }
    await merge(tx, { nextAt: timeOf(next(Date.parse(now))) })
    return { taken: true }
  })
}

export async function saveRegistry(pool: Pool, state: Partial<RegistryState>): Promise<void> {
  await merge(pool, state)
}

async function merge(tx: Queryable, state: Partial<RegistryState>): Promise<void> {
  await tx.query(
    `update settings set value = '{"lastAt": null, "lastGoodAt": null, "error": null, "refused": [], "sources": 0}'::jsonb
       || value || $2::text::jsonb where name = $1`,
    [SETTING, JSON.stringify(state)],
  )
}

/** All sources that the list keeps, locked until the transaction ends. */
export async function lockManaged(tx: Queryable, managedBy: string): Promise<StoredSource[]> {
  const { rows } = await tx.query<SourceRow>(
    `select ${SOURCE_COLUMNS} from sources s where s.managed_by = $1 order by s.id for update`,
    [managedBy],
  )
  return rows.map(storedSource)
}
