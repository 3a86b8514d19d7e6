import type { Command } from 'commander'
import { jsonOption, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { Failure } from '../failure.ts'
import { note, paintStatus, print, printJson, table } from '../output.ts'

export function migrateCommands(program: Command, deps: CliDeps): void {
  const migrate = withExamples(
    program.command('migrate').description("Bring the database's schema to this version, or compare them"),
    ['before the nodes start with MIGRATE=off', 'longshore migrate up'],
  )
  const up = migrate
    .command('up')
    .description('Apply every migration that is missing, all or none; nodes may run meanwhile')
    .action(async ({ json }: { json?: true }) => {
      const [{ withDatabase, quietLog }, store] = await Promise.all([
        import('../ledger.ts'),
        import('../../store/database/migrate.ts'),
      ])
      const applied = await withDatabase(
        deps,
        async (database) => {
          const before = await store.schemaStatus(database)
          if (!json && before.pending.length > 0) note(`Applies ${before.pending.join(', ')}`)
          await store.migrate(database, quietLog)
          return before.pending
        },
        { make: true },
      )
      if (json) return printJson({ applied })
      print(applied.length === 0 ? 'The schema is up to date' : `Applied ${applied.join(', ')}`)
    })
  withExamples(jsonOption(up), ['before the nodes start with MIGRATE=off', 'longshore migrate up'])

  const status = migrate
    .command('status')
    .description('Compare the schema with this version; exit code 1 when they differ')
    .action(async ({ json }: { json?: true }) => {
      const [{ withDatabase }, store] = await Promise.all([
        import('../ledger.ts'),
        import('../../store/database/migrate.ts'),
      ])
      const found = await withDatabase(deps, (database) => store.schemaStatus(database))
      if (json) printJson(found)
      else {
        const rows = (['applied', 'pending', 'unknown'] as const).flatMap((state) =>
          found[state].map((name) => ({ name, state })),
        )
        print(
          table(
            [
              { head: 'MIGRATION', cell: ({ name }) => name },
              { head: 'STATE', cell: ({ state }) => paintStatus(state === 'applied' ? 'ok' : state) },
            ],
            rows,
          ),
        )
      }
      if (found.unknown.length > 0) throw new Failure('The schema is newer than this version: use a newer longshore')
      if (found.pending.length > 0) throw new Failure('The schema is older than this version: longshore migrate up')
    })
  withExamples(jsonOption(status), ['is a migration due?', 'longshore migrate status || longshore migrate up'])
}
