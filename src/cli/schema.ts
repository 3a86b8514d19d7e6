import type { Database } from '../store/database/database.ts'
import { assertUsable, schemaStatus } from '../store/database/migrate.ts'
import { Failure } from './failure.ts'

/** Rejects unless the database has the schema that this version works with. */
export async function assertCurrent(database: Database): Promise<void> {
  await assertUsable(database)
  const { applied, pending } = await schemaStatus(database)
  if (applied.length === 0) throw new Failure('The database is empty: longshore migrate up makes the schema')
  if (pending.length > 0) {
    throw new Failure(`The schema is older than this version (it lacks ${pending.join(', ')}): longshore migrate up`)
  }
}
