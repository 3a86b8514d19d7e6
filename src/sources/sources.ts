import { v7 as uuidv7 } from 'uuid'
import { invalid, Problem } from '../runtime/errors.ts'
import type { Sealed, SecretBox } from '../runtime/secret-box.ts'
import type { Database } from '../store/database/database.ts'
import { databaseTime, inTransaction, type Transaction } from '../store/database/statement.ts'
import {
  confirmIdentity,
  deleteSource,
  insertSource,
  type NextPoll,
  type SourceChange,
  updateSource,
} from '../store/sources/change.ts'
import { askForPoll, type PollWish } from '../store/sources/due.ts'
import { lockSource, type StoredSource, sourceById } from '../store/sources/read.ts'
import { aboutSource } from '../store/sources/secrets.ts'
import { ensureImportTopology } from '../store/topology/import-topology.ts'
import { queueExists } from '../store/topology/queues.ts'
import { completeSource } from '../task/source/defaults.ts'
import {
  type ShownAuth,
  type SourceAuth,
  type SourceBody,
  type SourcePatch,
  type SourceSettings,
  shownAuth,
} from '../task/source/source.ts'
import type { Source } from '../task/source/state.ts'
import { checkSource, type SourceChecks } from './check-source.ts'
import { secretOf } from './connection.ts'
import { nextPoll } from './poller.ts'
import { changedTrust, statedIdentity } from './trust.ts'

/** Changes of sources by somebody. Bodies satisfy their schemas; what else is wrong with them is a Problem. */
export interface Sources {
  /** Rejects with `validation`, `unknown-queue`, `conflict` (the name is taken) or `secret-key-missing`. */
  create(body: SourceBody): Promise<Source>
  /** Undefined when there is no such source. Rejects as `create`, and with `conflict` for what a registry decides. */
  patch(id: string, patch: SourcePatch): Promise<Source | undefined>
  setPaused(id: string, paused: boolean): Promise<Source | undefined>
  /** False when there is no such source. What was fetched is imported no further; tasks of its records stay. */
  remove(id: string): Promise<boolean>
  /** Polls as soon as somebody can. */
  poll(id: string): Promise<PollWish>
  /**
   * Expects from now on whoever answered at the alert; `fingerprint` is what the person has seen. False: there is no such alert.
   * Rejects with `conflict` where the source itself states who its server is.
   */
  confirm(id: string, fingerprint: string): Promise<boolean>
}

export interface SourcesDeps extends SourceChecks {
  pool: Database['pool']
  box: SecretBox | undefined
  /** Told after each change: pollers look at once. */
  onChanged(): void
  /** Told when queues, exchanges, bindings or consumers were made. */
  onTopology(): void
}

export function createSources(deps: SourcesDeps): Sources {
  const { pool } = deps

  async function changed<T>(work: (tx: Transaction) => Promise<{ result: T; topology: boolean }>): Promise<T> {
    const { result, topology } = await inTransaction(pool, work)
    if (topology) deps.onTopology()
    deps.onChanged()
    return result
  }

  return {
    create: ({ name, auth, paused = false, ...settings }) =>
      changed(async (tx) => {
        checkSource(settings, auth ?? null, deps)
        const id = uuidv7()
        const topology = await ready(tx, settings)
        const sealed = auth ? seal(deps.box, id, auth) : null
        const source = { id, name, settings, auth: auth ? shownAuth(auth) : null, sealed, paused }
        const result = await insertSource(tx, source, firstPoll(settings))
        if (!result) throw nameTaken(name)
        return { result: shown(result), topology }
      }),

    patch: (id, patch) =>
      changed(async (tx) => {
        const before = await lockSource(tx, id)
        if (!before) return { result: undefined, topology: false }
        const change = await changeOf(tx, before, patch, deps)
        const topology = await ready(tx, change.settings ?? before.settings)
        const result = await updateSource(tx, id, change)
        if (result === 'name-taken') throw nameTaken(patch.name ?? '')
        return { result: result && shown(result), topology }
      }),

    async setPaused(id, paused) {
      const result = await updateSource(pool, id, { paused, ...(paused ? {} : { nextPoll: 'now' }) })
      deps.onChanged()
      return result && result !== 'name-taken' ? shown(result) : undefined
    },

    remove: (id) => deleteSource(pool, id),

    async poll(id) {
      const wish = await askForPoll(pool, id)
      if (wish === 'asked') deps.onChanged()
      return wish
    },

    async confirm(id, fingerprint) {
      const source = await sourceById(pool, id)
      const stated = source && statedIdentity(source.settings)
      if (stated) throw statedElsewhere(source, stated)
      const confirmed = await confirmIdentity(pool, id, fingerprint)
      if (confirmed) deps.onChanged()
      return confirmed
    },
  }
}

/** A source as it may be shown. */
export function shown({ sealed: _, ...source }: StoredSource): Source {
  return source
}

/** What a source needs to be polled; true when topology was made for it. */
async function ready(tx: Transaction, settings: SourceSettings): Promise<boolean> {
  const { mode, deliver } = completeSource(settings)
  const isImport = mode === 'import'
  if (isImport && deliver && !(await queueExists(tx, deliver.queue))) {
    const detail = `There is no queue "${deliver.queue}": create it with PUT /api/v1/queues/<name>`
    throw invalid('/deliver/queue', detail, 'unknown-queue')
  }
  return ensureImportTopology(tx, { imports: isImport })
}

export function seal(box: SecretBox | undefined, id: string, auth: SourceAuth): Sealed {
  if (!box) {
    const detail =
      'Credentials are stored encrypted, and there is no key: set LONGSHORE_SECRET_KEY (openssl rand -base64 32) on every node'
    throw new Problem('secret-key-missing', detail, [
      { path: '/auth', message: 'cannot be encrypted: there is no key' },
    ])
  }
  return box.seal(secretOf(auth), aboutSource(id))
}

/** With a cron expression it is looked at once at the beginning: what is there already need not wait. */
function firstPoll({ cron }: SourceSettings): NextPoll {
  return cron === undefined ? 'never' : 'now'
}

function nameTaken(name: string): Problem {
  const detail = `There is a source "${name}" already`
  return new Problem('conflict', detail, [{ path: '/name', message: 'is the name of another source' }])
}

function statedElsewhere({ name }: Source, field: string): Problem {
  const detail = `The source "${name}" states itself who its server is: PATCH its "${field}" and give "auth" again`
  return new Problem('conflict', detail)
}

/** What a registry says is changed there; of how to log in, what it says of it. */
const OF_REGISTRY = ['protocol', 'host', 'port', 'directory'] as const

function refuseListed({ managedBy, auth: listed }: StoredSource, { auth, ...given }: SourcePatch): void {
  if (managedBy === null) return
  const isListed = auth !== undefined && (!auth || !listed || listed.secret === 'listed')
  const refused = OF_REGISTRY.find((field) => field in given) ?? (isListed ? 'auth' : undefined)
  if (refused) {
    const detail = `"${refused}" is what the ${managedBy} says of this source: change it there`
    throw new Problem('conflict', detail, [{ path: `/${refused}`, message: `comes from the ${managedBy}` }])
  }
  if (auth && auth.username !== listed?.username) {
    throw invalid('/auth/username', `must be "${listed?.username}", whom the ${managedBy} names`)
  }
}

async function changeOf(
  tx: Transaction,
  before: StoredSource,
  patch: SourcePatch,
  deps: SourcesDeps,
): Promise<SourceChange> {
  refuseListed(before, patch)
  const { name, auth, paused, ...given } = patch
  const settings = merged(before.settings, given)
  checkSource(settings, auth === undefined ? before.auth : auth, deps)
  const moved = changedTrust(before.settings, settings)
  if (moved && before.auth && before.sealed && auth === undefined) throw secretNeeded(before.auth, moved)
  const isRetimed = given.cron !== undefined || given.timezone !== undefined
  const isResumed = paused === false && before.paused
  return {
    name,
    settings,
    ...(auth !== undefined && {
      auth: auth && shownAuth(auth),
      sealed: auth && seal(deps.box, before.id, auth),
    }),
    paused,
    ...(isRetimed && { nextPoll: nextPoll({ settings }, await databaseTime(tx)) }),
    ...(isResumed && settings.cron !== undefined && { nextPoll: 'now' as const }),
    forgetIdentity: moved !== undefined,
  }
}

/** What is stored was given for one server: it goes to no other that somebody names later. */
function secretNeeded({ kind }: ShownAuth, moved: string): Problem {
  const secret = kind === 'key' ? 'private key' : 'password'
  return invalid('/auth', `give the ${secret} again: with another "${moved}" it may be another server that gets it`)
}

function merged(before: SourceSettings, given: Omit<SourcePatch, 'name' | 'auth' | 'paused'>): SourceSettings {
  const entries = Object.entries({ ...before, ...given }).filter(([, value]) => value !== null && value !== undefined)
  return Object.fromEntries(entries) as SourceSettings
}
