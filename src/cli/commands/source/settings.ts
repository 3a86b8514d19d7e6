import { readFile } from 'node:fs/promises'
import { text as textOf } from 'node:stream/consumers'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { PROTOCOLS } from '../../../task/source/source.ts'
import { type ApiOptions, collect, jsonText, wholeNumber } from '../../command.ts'
import { EXIT, Failure } from '../../failure.ts'

export interface SettingOptions extends ApiOptions {
  protocol?: string
  host?: string
  port?: number
  user?: string
  passwordFile?: string
  keyFile?: string
  directory?: string
  include?: string[]
  exclude?: string[]
  recursive?: true
  format?: object
  cron?: string
  timezone?: string
  after?: object
  queue?: string
  recordsPerTask?: number
  settings?: string
}

/** The settings of a source as options. Passwords come by file or standard input: a command line is seen by every user of a machine. */
export function settingOptions(command: Command): Command {
  return command
    .addOption(new Option('-p, --protocol <protocol>', 'how it is spoken to').choices(PROTOCOLS))
    .option('--host <host>', 'its name or address')
    .addOption(wholeNumber('--port <port>', 'by default that of the protocol', 1, 65_535))
    .option('-u, --user <name>', 'the user to log in as; without it anonymous')
    .option('--password-file <file>', 'where the password is, - for standard input')
    .option('--key-file <file>', 'where the private key is (sftp)')
    .option('-d, --directory <path>', 'what is polled; by default where the login leads')
    .option('--include <globs>', 'only files with such names, separated by commas', collect)
    .option('--exclude <globs>', 'not files with such names', collect)
    .option('-r, --recursive', 'directories below, too')
    .option('-f, --format <format>', 'csv, json, xml or by-extension, or its JSON', formatOf)
    .option('-c, --cron <expression>', 'when to look; without it when asked')
    .option('-z, --timezone <zone>', 'the zone of these times (default: UTC)')
    .option('--after <action>', 'none, delete or move:<directory>: what is done with a file that is imported', afterOf)
    .option('-q, --queue <name>', 'where the records go')
    .addOption(wholeNumber('--records-per-task <count>', 'by default 1', 1, 1_000))
    .option('--settings <json>', 'anything else, as POST /api/v1/sources takes it', jsonText)
}

/** What the options name, as POST and PATCH take it. */
export async function settingsOf(options: SettingOptions): Promise<object> {
  const { protocol, host, port, directory, include, exclude, recursive, format, cron, timezone, after } = options
  const { queue, recordsPerTask, settings = '{}' } = options
  return {
    ...{ protocol, host, port, auth: await authOf(options), directory, include, exclude, recursive },
    ...{ format, cron, timezone, after },
    ...((queue !== undefined || recordsPerTask !== undefined) && { deliver: { queue, recordsPerTask } }),
    ...(JSON.parse(settings) as object),
  }
}

async function authOf({ user: username, passwordFile, keyFile }: SettingOptions): Promise<object | undefined> {
  if (username === undefined) {
    if (passwordFile === undefined && keyFile === undefined) return undefined
    throw new Failure('--user is needed with --password-file and --key-file', EXIT.usage)
  }
  if (keyFile !== undefined) {
    const passphrase = passwordFile === undefined ? undefined : await secretIn(passwordFile)
    return { kind: 'key', username, privateKey: await secretIn(keyFile, false), passphrase }
  }
  if (passwordFile === undefined) throw new Failure('--user needs --password-file or --key-file', EXIT.usage)
  return { kind: 'password', username, password: await secretIn(passwordFile) }
}

/** The line break that editors end a file with is not part of a password. */
async function secretIn(file: string, isLine = true): Promise<string> {
  try {
    const text = file === '-' ? await textOf(process.stdin) : await readFile(file, 'utf8')
    return isLine ? text.replace(/\r?\n$/, '') : text
  } catch (error) {
    throw new Failure(`Cannot read ${file} (${(error as NodeJS.ErrnoException).code})`, EXIT.usage)
  }
}

function formatOf(text: string): object {
  if (text.startsWith('{')) return JSON.parse(jsonText(text)) as object
  return { type: text }
}

function afterOf(text: string): object {
  if (text === 'none' || text === 'delete') return { kind: text }
  const to = /^move:(.+)$/.exec(text)?.[1]
  if (to === undefined) throw new InvalidArgumentError('It must be none, delete or move:<directory>.')
  return { kind: 'move', to }
}
