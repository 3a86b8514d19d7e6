import { join } from 'node:path'
import type { Command } from 'commander'
import { jsonOption, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { counted, note, oneLine, print, printJson } from '../output.ts'

export function secretsCommands(program: Command, deps: CliDeps): void {
  const secrets = withExamples(program.command('secrets').description('Look after the stored credentials of sources'), [
    'after a new key was put in front',
    'longshore secrets rotate',
  ])
  const rotate = secrets
    .command('rotate')
    .description('Encrypt stored credentials anew with the first key of LONGSHORE_SECRET_KEY')
    .action(async ({ json }: { json?: true }) => {
      const [{ withDatabase }, { assertCurrent }, { rotateSecrets }, { openSecretBox }] = await Promise.all([
        import('../ledger.ts'),
        import('../schema.ts'),
        import('../../store/sources/secrets.ts'),
        import('../../store/keys/secret-key.ts'),
      ])
      const { settings } = await deps.load()
      const { secretKeys, databaseUrl, dataDir } = settings
      const file = databaseUrl === undefined ? join(dataDir, 'secret.key') : null
      const box = await openSecretBox(secretKeys?.reveal(), file)
      if (!box) throw new Failure('There is no key: set LONGSHORE_SECRET_KEY as the nodes have it', EXIT.usage)
      const { rotated, failed } = await withDatabase(deps, async (database) => {
        await assertCurrent(database)
        return rotateSecrets(database.pool, box)
      })
      if (json) printJson({ keyId: box.keyId, rotated, failed })
      else {
        print(`${counted(rotated, 'secret')} encrypted anew with the key "${box.keyId}"`)
        for (const { name, reason } of failed) note(`The secret of "${oneLine(name)}" stays as it is: ${reason}`)
      }
      if (failed.length > 0) throw new Failure(`${counted(failed.length, 'secret')} could not be read`)
    })
  withExamples(jsonOption(rotate), [
    'the new key first, then the old one, on every node; then',
    'LONGSHORE_SECRET_KEY="$NEW,$OLD" longshore secrets rotate',
  ])
}
