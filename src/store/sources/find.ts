import type { Pool } from 'pg'
import { isUuid } from '../../runtime/uuid.ts'
import { SOURCE_COLUMNS, type SourceRow, type StoredSource, sourceById, storedSource } from './read.ts'

/** The source with this id or, if it is no UUID, of this name; undefined when there is none. */
export async function findSource(pool: Pool, idOrName: string): Promise<StoredSource | undefined> {
  if (isUuid(idOrName)) return sourceById(pool, idOrName)
  const { rows } = await pool.query<SourceRow>(`select ${SOURCE_COLUMNS} from sources s where s.name = $1`, [idOrName])
  return rows.map(storedSource)[0]
}
