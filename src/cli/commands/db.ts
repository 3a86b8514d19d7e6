import type { Command } from 'commander'
import type { ConnectionOptions } from '../../store/database/database.ts'
import { jsonOption, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { note, print, printJson } from '../output.ts'

export function dbCommands(program: Command, deps: CliDeps): void {
  const db = withExamples(program.command('db').description('Reach the database with tools of your own'), [
    'look into it',
    'psql "$(longshore db url --password)"',
  ])
  const url = db
    .command('url')
    .description('Print how to reach the database with psql, pg_dump and the like')
    .option('--password', 'with the password, which is left out otherwise')
    .action(async ({ password = false, json }: { password?: boolean; json?: true }) => {
      const { settings } = await deps.load()
      const { databaseUrl, dataDir } = settings
      if (databaseUrl) {
        const text = withoutPassword(databaseUrl.reveal(), password)
        return json ? printJson({ url: text, kind: 'server' }) : print(text)
      }
      const { embeddedConnection } = await import('../../store/postgres/embedded.ts')
      const connection = await embeddedConnection(dataDir)
      if (!connection) {
        throw new Failure(
          `The embedded Postgres of ${dataDir} does not run: it is there while a node runs (longshore start)`,
          EXIT.unreachable,
        )
      }
      const text = socketUrl(connection, password)
      if (json) return printJson({ url: text, kind: 'embedded' })
      print(text)
      if (!password) note(`The password lies in ${dataDir}/postgres/password; --password puts it into the URL.`)
    })
  withExamples(
    jsonOption(url),
    ['look into it', 'psql "$(longshore db url --password)"'],
    ['a backup while the node runs', 'pg_dump --format=custom --file=longshore.dump "$(longshore db url --password)"'],
    [
      'without the password among the process list',
      'PGPASSWORD=$(cat data/postgres/password) psql "$(longshore db url)"',
    ],
  )
}

/** A URL that libpq takes for a server on a Unix socket. */
function socketUrl(connection: ConnectionOptions, password: boolean): string {
  if ('url' in connection) return withoutPassword(connection.url, password)
  const { user, database, socketDir, port } = connection
  const login = password ? `${user}:${encodeURIComponent(connection.password)}` : user
  return `postgresql://${login}@/${database}?host=${encodeURIComponent(socketDir)}&port=${port}`
}

/** The URL without its password, in its userinfo or among its parameters, unless `keep`. */
function withoutPassword(url: string, keep: boolean): string {
  if (keep) return url
  const [head = '', query] = url.split('?', 2)
  const bare = head.replace(/^([a-z]+:\/\/[^/@:]*):[^/]*@/, '$1@')
  const parameters = query?.split('&').filter((part) => !/^(password|sslpassword)=/i.test(part))
  return parameters && parameters.length > 0 ? `${bare}?${parameters.join('&')}` : bare
}
