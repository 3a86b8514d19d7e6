import type { Pool } from 'pg'
import { SOURCE_COLUMNS, type SourceRow, type StoredSource, storedSource } from './read.ts'

/** How many digits of an id, all of them random, make its number: 48 bits, which every JSON parser can hold. */
const DIGITS = 12

/** A whole number that stands for the source, for clients that know no other ids. */
export function numberOf(id: string): number {
  return Number.parseInt(id.slice(-DIGITS), 16)
}

/** The source that has this number; undefined when there is none. */
export async function sourceByNumber(pool: Pool, number: number): Promise<StoredSource | undefined> {
  const digits = number.toString(16).padStart(DIGITS, '0')
  const { rows } = await pool.query<SourceRow>(
    `select ${SOURCE_COLUMNS} from sources s where right(s.id::text, ${DIGITS}) = $1 order by s.id limit 1`,
    [digits],
  )
  return rows.map(storedSource)[0]
}
