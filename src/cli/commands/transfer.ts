import type { Command } from 'commander'
import { jsonOption, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { Failure } from '../failure.ts'
import { print, printJson } from '../output.ts'

/** `export` and `import`: a whole ledger as a file, for the way from the embedded database to a server. */
export function transferCommands(program: Command, deps: CliDeps): void {
  const out = program
    .command('export')
    .argument('<file>', 'where to write it; readable for you alone, as it holds payloads and secrets of targets')
    .description('Write the whole ledger to a file')
    .option('--live', 'while nodes work on it: to look at it, not to import it')
    .action(async (file: string, { live = false, json }: { live?: boolean; json?: true }) =>
      told(deps, json, 'Exported', (store, database) => store.exportLedger(database, file, live)),
    )
  withExamples(jsonOption(out), ['from the embedded database, with the node stopped', 'longshore export ledger.gz'])

  const into = program
    .command('import')
    .argument('<file>', 'what longshore export has written')
    .description('Read a ledger from a file into a database without tasks, all of it or nothing')
    .action(async (file: string, { json }: { json?: true }) =>
      told(deps, json, 'Imported', (store, database) => store.importLedger(database, file)),
    )
  withExamples(jsonOption(into), [
    'into a server',
    'DATABASE_URL=postgres://user:password@host/db longshore import ledger.gz',
  ])
}

type Store = typeof import('../../store/transfer.ts')
type Database = Parameters<Store['exportLedger']>[0]

async function told(
  deps: CliDeps,
  json: true | undefined,
  did: string,
  work: (store: Store, database: Database) => Promise<Record<string, number>>,
): Promise<void> {
  const [{ withDatabase, quietLog }, store, { migrate }] = await Promise.all([
    import('../ledger.ts'),
    import('../../store/transfer.ts'),
    import('../../store/database/migrate.ts'),
  ])
  const rows = await withDatabase(
    deps,
    async (database) => {
      if (did === 'Imported') await migrate(database, quietLog)
      return work(store, database)
    },
    { make: did === 'Imported' },
  ).catch((error) => {
    throw error instanceof store.TransferRefused ? new Failure(error.message) : error
  })
  if (json) return printJson({ rows })
  const tables = Object.entries(rows).filter(([, count]) => count > 0)
  print(`${did} ${tables.map(([table, count]) => `${count} ${table}`).join(', ') || 'an empty ledger'}`)
}
