import type { Command } from 'commander'
import { openClient } from '../../client.ts'
import { apiOptions, withExamples } from '../../command.ts'
import type { CliDeps } from '../../deps.ts'
import { note, print, printJson } from '../../output.ts'
import { type SettingOptions, settingOptions, settingsOf } from './settings.ts'
import { type Source, sourceDescription } from './view.ts'

export function createCommand(source: Command, deps: CliDeps): void {
  const command = source
    .command('create')
    .description('Make a source: a file server that is polled from now on')
    .argument('<name>', 'what it is called')
    .option('--paused', 'make it paused')
    .action(async (name: string, { paused, ...options }: SettingOptions & { paused?: true }) => {
      const client = await openClient(deps, options)
      const text = await client.text(
        'POST',
        '/sources',
        JSON.stringify({ name, ...(await settingsOf(options)), paused }),
      )
      if (options.json) return printJson(text)
      print(sourceDescription(JSON.parse(text) as Source))
      note(`Try it: longshore source test ${name}`)
    })
  withExamples(
    apiOptions(settingOptions(command)),
    [
      'every five minutes, and move what is imported',
      "longshore source create bank -p sftp --host files.example.com -u reports --password-file bank.password -d /outgoing --include '*.csv' -c '*/5 * * * *' --after move:done -q transactions",
    ],
    [
      'with what has no option of its own',
      `longshore source create bank -p ftps --host files.example.com -q transactions --settings '{"ready":{"kind":"marker"}}'`,
    ],
  )
}
