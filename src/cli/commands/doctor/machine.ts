import { constants } from 'node:fs'
import { access, readFile, stat, statfs } from 'node:fs/promises'
import { createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { messageOf } from '../../../runtime/errors.ts'
import { urlOf } from '../../client.ts'
import type { CliDeps, Settings } from '../../deps.ts'
import { checkHandlers } from '../handlers.ts'
import { type Finding, fault, ok, warning } from './finding.ts'

const MIB = 1024 * 1024
/** Below the first Postgres may stop at any moment, below the second it is time to act. */
const NO_SPACE_BYTES = 256 * MIB
const LITTLE_SPACE_BYTES = 1024 * MIB

/** What can be seen without a database: the folder, the disk, the admin key, the port, the handlers. */
export async function checkMachine(settings: Settings, { threadUrl }: CliDeps): Promise<Finding[]> {
  const { dataDir } = settings
  return [
    await folder(dataDir),
    await disk(dataDir),
    ...(await secretFile('admin-key', join(dataDir, 'admin.key'), 'the admin key')),
    ...(await secretFile('database-password', join(dataDir, 'postgres', 'password'), "the database's password")),
    await port(settings),
    ...(await handlers(settings.handlersDir, threadUrl)),
  ]
}

async function folder(dataDir: string): Promise<Finding> {
  const near = await nearest(dataDir)
  try {
    await access(near, constants.W_OK | constants.X_OK)
    return ok('data-dir', near === dataDir ? `${dataDir} can be written` : `${dataDir} can be made`)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return fault(
      'data-dir',
      `${near} cannot be written (${code})`,
      'Give this user the right to write there, or set DATA_DIR',
    )
  }
}

async function disk(dataDir: string): Promise<Finding> {
  const near = await nearest(dataDir)
  const { bavail, bsize, blocks } = await statfs(near)
  const free = bavail * bsize
  const what = `${Math.round(free / MIB)} MiB of ${Math.round((blocks * bsize) / MIB)} MiB are free in ${near}`
  const remedy = 'Free some space, move DATA_DIR to a larger disk, or shorten the retention (longshore queue set)'
  if (free < NO_SPACE_BYTES) return fault('disk', what, remedy)
  return free < LITTLE_SPACE_BYTES ? warning('disk', what, remedy) : ok('disk', what)
}

/** The path itself, or the first folder above it that exists. */
async function nearest(path: string): Promise<string> {
  for (let at = path; ; at = dirname(at)) {
    if (at === dirname(at)) return at
    if (await stat(at).catch(() => undefined)) return at
  }
}

async function secretFile(check: string, file: string, what: string): Promise<Finding[]> {
  let mode: number
  try {
    mode = (await stat(file)).mode & 0o777
    await readFile(file)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    return [warning(check, `${file} cannot be read (${code})`, 'Run the command as the user of the node')]
  }
  if ((mode & 0o077) === 0) return [ok(check, `${file} is for its owner alone`)]
  return [
    fault(
      check,
      `${file} holds ${what}, and others may read it (mode ${mode.toString(8)})`,
      `chmod 600 ${file}; and if somebody may have, make a new one`,
    ),
  ]
}

const ANSWER_MS = 3_000

async function port(settings: Settings): Promise<Finding> {
  const { host, port } = settings
  if (port === 0) return ok('port', 'PORT is 0: a free one is taken')
  const error = await listenError(host, port)
  if (!error) return ok('port', `${port} on ${host} is free: no node listens there`)
  if (error.code === 'EADDRINUSE') {
    const url = urlOf(settings)
    if (await isLongshore(url)) return ok('port', `A node listens on ${url}`)
    return fault(
      'port',
      `Port ${port} on ${host} is taken by another program`,
      `End that program (ss -ltnp 'sport = :${port}' names it), or set PORT`,
    )
  }
  if (error.code === 'EACCES')
    return fault('port', `This user may not listen on port ${port}`, 'Set PORT to 1024 or more')
  return fault(
    'port',
    `Nothing can listen on ${host}, port ${port}: ${messageOf(error)}`,
    'Set HOST to an address of this machine',
  )
}

function listenError(host: string, port: number): Promise<NodeJS.ErrnoException | undefined> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', resolve)
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)))
  })
}

async function isLongshore(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/health/live`, { signal: AbortSignal.timeout(ANSWER_MS) })
    return ((await response.json()) as { status?: unknown }).status === 'ok'
  } catch {
    return false
  }
}

async function handlers(dir: string, threadUrl: URL): Promise<Finding[]> {
  if (!(await stat(dir).catch(() => undefined))) return []
  const checked = await checkHandlers(dir, threadUrl).catch((error: unknown) => messageOf(error))
  if (typeof checked === 'string') return [fault('handlers', checked, 'Give this user the right to read it')]
  const bad = checked.filter(({ ok }) => !ok)
  if (bad.length === 0) return [ok('handlers', `${checked.length} handlers in ${dir} can be loaded`)]
  return bad.map(({ file, problem }) =>
    fault('handlers', `${join(dir, file)}: ${problem}`, 'Mend the file; longshore handlers check looks again'),
  )
}
