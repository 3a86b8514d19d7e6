import type { Pool } from 'pg'
import type { Sealed } from '../../runtime/secret-box.ts'
import type { Source } from '../../task/source/state.ts'
import type { Queryable } from '../database/statement.ts'

/** A source with its encrypted credentials. */
export interface StoredSource extends Source {
  sealed: Sealed | null
}

export const SOURCE_COLUMNS = `s.id, s.name, s.settings, s.auth, s.paused, s.managed_by as "managedBy",
  s.external_id as "externalId", s.gone_at as "goneAt", s.pinned, s.alert,
  case when s.next_poll_at < 'infinity' then s.next_poll_at end as "nextPollAt", s.polled_at as "polledAt", s.poll,
  s.created_at as "createdAt", s.updated_at as "updatedAt", s.secret, s.secret_key as "secretKey"`

export type SourceRow = Source & { secret: Buffer | null; secretKey: string | null }

export function storedSource({ secret, secretKey, ...source }: SourceRow): StoredSource {
  return { ...source, sealed: secret && { keyId: secretKey ?? '', bytes: secret } }
}

export interface SourceFilter {
  managedBy?: string | undefined
  /** A name: those after it. */
  after?: string | undefined
  limit: number
}

/** Sources by name. */
export async function listSources(pool: Pool, { managedBy, after, limit }: SourceFilter): Promise<StoredSource[]> {
  const { rows } = await pool.query<SourceRow>(
    `select ${SOURCE_COLUMNS} from sources s
     where ($1::text is null or s.managed_by = $1) and ($2::text is null or s.name collate "C" > $2)
     order by s.name collate "C" limit $3`,
    [managedBy ?? null, after ?? null, limit],
  )
  return rows.map(storedSource)
}

/** Undefined when there is none with this id, which is a UUID. */
export async function sourceById(pool: Queryable, id: string): Promise<StoredSource | undefined> {
  const { rows } = await pool.query<SourceRow>(`select ${SOURCE_COLUMNS} from sources s where s.id = $1`, [id])
  return rows.map(storedSource)[0]
}

/** As `sourceById`, locked until the transaction ends. */
export async function lockSource(tx: Queryable, id: string): Promise<StoredSource | undefined> {
  const { rows } = await tx.query<SourceRow>(`select ${SOURCE_COLUMNS} from sources s where s.id = $1 for update`, [id])
  return rows.map(storedSource)[0]
}
