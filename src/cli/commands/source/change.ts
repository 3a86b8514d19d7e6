import type { Command } from 'commander'
import { printAnswer } from '../../answer.ts'
import { openClient } from '../../client.ts'
import { apiOptions, withExamples } from '../../command.ts'
import type { CliDeps } from '../../deps.ts'
import { EXIT, Failure } from '../../failure.ts'
import { type SettingOptions, settingOptions, settingsOf } from './settings.ts'
import { SOURCE, type Source, sourceDescription, sourcePath } from './view.ts'

export function changeCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('change')
    .description('Change the settings of a source that are named; the others stay')
    .argument('<source>', SOURCE)
    .action(async (name: string, options: SettingOptions) => {
      const client = await openClient(deps, options)
      const given = JSON.parse(JSON.stringify(await settingsOf(options))) as { deliver?: object }
      if (Object.keys(given).length === 0) throw new Failure('Name what is to be changed', EXIT.usage)
      // A field that is given replaces the whole of what was there.
      if (given.deliver) {
        const { deliver } = await client.call<Source>('GET', sourcePath(name))
        given.deliver = { ...deliver, ...given.deliver }
      }
      await printAnswer(client, options, ['PATCH', sourcePath(name), JSON.stringify(given)], sourceDescription)
    })
  withExamples(
    apiOptions(settingOptions(command)),
    ['look more often', "longshore source change bank -c '*/2 * * * *'"],
    ['a new password', 'longshore source change bank -u reports --password-file bank.password'],
    ['back to a default', `longshore source change bank --settings '{"timezone":null}'`],
  )
}
