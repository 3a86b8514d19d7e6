import { v7 as uuidv7 } from 'uuid'
import type { Clock } from '../../runtime/clock.ts'
import { parseCron } from '../../runtime/cron.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { createPeriodic, serviceOf } from '../../runtime/periodic.ts'
import type { SecretBox } from '../../runtime/secret-box.ts'
import type { Service } from '../../runtime/service.ts'
import type { Database } from '../../store/database/database.ts'
import { inTransaction, type Transaction } from '../../store/database/statement.ts'
import { insertSource, type NewSource, type SourceChange, updateSource } from '../../store/sources/change.ts'
import { lockManaged, REGISTRY, saveRegistry, takeRegistryTurn } from '../../store/sources/managed.ts'
import type { StoredSource } from '../../store/sources/read.ts'
import { aboutSource } from '../../store/sources/secrets.ts'
import { ensureImportTopology, ensureQueue } from '../../store/topology/import-topology.ts'
import { type SourceAuth, type SourceSettings, shownAuth } from '../../task/source/source.ts'
import { secretOf } from '../connection.ts'
import { seal } from '../sources.ts'
import { changedTrust } from '../trust.ts'
import { fetchRegistry } from './fetch.ts'
import {
  changedSettings,
  newSettings,
  REGISTERED_RECORDS,
  type RegistryConnection,
  type RegistryList,
  readRegistryList,
} from './list.ts'

export interface RegistryDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  box: SecretBox | undefined
  /** FTP_REGISTRY_URL. */
  url: string
  /** FTP_REGISTRY_CRON, which is one. */
  cron: string
  /** Sources changed: pollers look at once. */
  onChanged(): void
  /** Queues, exchanges, bindings or consumers were made. */
  onTopology(): void
}

const LOOK_MS = 60_000
const RETRY_MS = 5_000

/**
 * Keeps sources in step with a registry's list: adds, changes, and pauses those that it does not name any more; never deletes
 * one. When the list cannot be had, the last one stays, and why is kept for `registryState`.
 */
export function createRegistry(deps: RegistryDeps): Service {
  const { pool, clock, log, cron } = deps
  const parsed = parseCron(cron, 'UTC')
  const next = (now: number) => (parsed.ok ? parsed.cron.next(now) : undefined) ?? 'never'

  const periodic = createPeriodic({
    name: 'source-registry',
    description: 'Fetches the list of FTP connections and keeps sources in step with it',
    everyMs: LOOK_MS,
    retryMs: RETRY_MS,
    clock,
    async run(signal) {
      const turn = await takeRegistryTurn(pool, next)
      if (!turn.taken) return turn.delayMs + 1
      await lookAtRegistry(deps, signal)
      return 0
    },
    onError: (error) =>
      log.warn({ event: 'registry-failed', error: messageOf(error) }, 'Cannot keep sources in step with the registry'),
  })
  return serviceOf(periodic)
}

/** Fetches the list once and brings the sources into step; what is wrong with it is kept and logged, and nothing of it. */
export async function lookAtRegistry(deps: RegistryDeps, signal: AbortSignal): Promise<void> {
  const { pool, log } = deps
  const lastAt = new Date().toISOString()
  const answer = await fetchRegistry(deps.url, signal)
  const list = 'text' in answer ? readRegistryList(answer.text) : answer.error
  if (typeof list === 'string') {
    await saveRegistry(pool, { lastAt, error: list })
    log.warn(
      { event: 'registry-failed', error: list },
      `The registry's list cannot be used; the last one stays: ${list}`,
    )
    return
  }
  const error = deps.box ? null : 'There is no key to encrypt credentials with: set LONGSHORE_SECRET_KEY'
  if (deps.box) await syncSources(deps, list)
  const { refused, connections } = list
  await saveRegistry(pool, {
    lastAt,
    lastGoodAt: lastAt,
    error,
    refused: refused.slice(0, 20),
    sources: connections.length,
  })
  if (error !== null || refused.length > 0) {
    log.warn(
      { event: 'registry-failed', refused: refused.length, error: error ?? refused[0] },
      'Connections of the registry cannot be used',
    )
  }
}

async function syncSources(deps: RegistryDeps, list: RegistryList): Promise<void> {
  const synced = await inTransaction(deps.pool, async (tx) => {
    // One list after another: the first row of the topology is the lock.
    const topology = await ensureImportTopology(tx, { imports: list.connections.length > 0 })
    const queue = list.connections.length > 0 && (await ensureQueue(tx, REGISTERED_RECORDS))
    const known = new Map((await lockManaged(tx, REGISTRY)).map((source) => [source.externalId, source]))
    let changes = 0
    for (const connection of list.connections) {
      const before = known.get(connection.externalId)
      known.delete(connection.externalId)
      if (before ? await change(tx, before, connection, deps.box) : await add(tx, connection, deps.box)) changes++
    }
    // One that could not be read may be any of them.
    const gone = list.refused.length > 0 ? [] : [...known.values()].filter(({ goneAt }) => goneAt === null)
    for (const { id } of gone) await updateSource(tx, id, { gone: 'now' })
    return { topology: topology || queue, changes: changes + gone.length }
  })
  if (synced.topology) deps.onTopology()
  if (synced.changes > 0) {
    deps.onChanged()
    deps.log.info({ event: 'registry-synced', changed: synced.changes, sources: list.connections.length })
  }
}

async function add(tx: Transaction, connection: RegistryConnection, box: SecretBox | undefined): Promise<boolean> {
  const id = uuidv7()
  const source = {
    id,
    settings: newSettings(connection),
    ...loginOf(id, connection, box),
    paused: false,
    managedBy: REGISTRY,
    externalId: connection.externalId,
  }
  const name = `registry-${connection.externalId.replace(/[^A-Za-z0-9._-]/g, '-')}`.slice(0, 100)
  const inserted =
    (await insertSource(tx, { ...source, name }, 'now')) ??
    (await insertSource(tx, { ...source, name: `${name}-${id.slice(-12)}` }, 'now'))
  return inserted !== undefined
}

/** False when it is as it was. */
async function change(
  tx: Transaction,
  before: StoredSource,
  connection: RegistryConnection,
  box: SecretBox | undefined,
): Promise<boolean> {
  const settings = changedSettings(before.settings, connection)
  const login = changedLogin(before, settings, connection, box)
  const isChanged = !isSame(settings, before.settings)
  if (!isChanged && !login && before.goneAt === null) return false
  await updateSource(tx, before.id, {
    ...(isChanged && { settings }),
    ...login,
    ...(before.goneAt !== null && { gone: null }),
    nextPoll: 'now',
    forgetIdentity: changedTrust(before.settings, settings) !== undefined,
  })
  return true
}

/** How the list says to log in; where it tells no password, somebody has to give it here. */
function loginOf(
  id: string,
  { username, password }: RegistryConnection,
  box: SecretBox | undefined,
): Pick<NewSource, 'auth' | 'sealed'> {
  if (username === '') return { auth: null, sealed: null }
  if (password === undefined) return { auth: { kind: 'password', username, secret: 'missing' }, sealed: null }
  const auth = { kind: 'password', username, password } as const
  return { auth: shownAuth(auth, 'listed'), sealed: seal(box, id, auth) }
}

/**
 * What of it changes; undefined: nothing. A password that the list does not tell (any more) stays, with the server and the user
 * that it was given for.
 */
function changedLogin(
  before: StoredSource,
  settings: SourceSettings,
  connection: RegistryConnection,
  box: SecretBox | undefined,
): Pick<SourceChange, 'auth' | 'sealed'> | undefined {
  const { auth } = before
  const { username, password } = connection
  if (username === '' && auth === null) return undefined
  if (password !== undefined) {
    const isSame = isSameAuth(before, { kind: 'password', username, password }, box)
    return isSame ? undefined : loginOf(before.id, connection, box)
  }
  if (auth?.username !== username || changedTrust(before.settings, settings)) return loginOf(before.id, connection, box)
  return auth.secret === 'listed' ? { auth: { ...auth, secret: 'given' } } : undefined
}

/** Whatever the order of their fields, which the database does not keep. */
function isSame(one: object, other: object): boolean {
  const sorted = (value: object) => JSON.stringify(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
  return sorted(one) === sorted(other)
}

function isSameAuth({ id, auth, sealed }: StoredSource, given: SourceAuth, box: SecretBox | undefined): boolean {
  if (!auth || !sealed || !box || auth.secret !== 'listed' || auth.username !== given.username) return false
  try {
    return box.open(sealed, aboutSource(id)) === secretOf(given)
  } catch {
    // With a key that is gone: it is written anew.
    return false
  }
}
