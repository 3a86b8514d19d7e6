import type { Config } from '../config.ts'
import type { TableSettings } from '../task/attempt/thread-messages.ts'

/**
 * Where table targets write: anywhere in TABLE_DATABASE_URL, or else in a schema of their own beside the ledger; without
 * either (a worker without a database) nowhere.
 */
export function tablesOf(config: Pick<Config, 'tableDatabaseUrl'>, ledger: TableSettings['connection']): TableSettings
export function tablesOf(config: Pick<Config, 'tableDatabaseUrl'>): TableSettings | null
export function tablesOf(
  config: Pick<Config, 'tableDatabaseUrl'>,
  ledger?: TableSettings['connection'],
): TableSettings | null {
  const url = config.tableDatabaseUrl?.reveal()
  if (url !== undefined) return { connection: { url }, schema: 'public', onlySchema: false }
  return ledger ? { connection: ledger, schema: 'data', onlySchema: true } : null
}
