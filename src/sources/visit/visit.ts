import type { RemoteFiles } from '../../files/remote-files.ts'
import type { Clock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { type Database, isAboutDatabase } from '../../store/database/database.ts'
import { hold, release } from '../../store/database/locks.ts'
import { pendingAfter, postponeAfter, saveAfter } from '../../store/files/after.ts'
import { resetFetching } from '../../store/files/fetching.ts'
import { waitingFiles } from '../../store/files/listing.ts'
import { savePoll } from '../../store/sources/change.ts'
import { type DueSource, dueAgain, lockOfSource } from '../../store/sources/due.ts'
import type { StoredSource } from '../../store/sources/read.ts'
import type { Addressing } from '../../store/tasks/insert/insert-addressed.ts'
import { type CompleteSource, completeSource } from '../../task/source/defaults.ts'
import type { PollReport } from '../../task/source/state.ts'
import { type ConnectionDeps, connectSource } from '../connection.ts'
import { endsConnection, pollFailure } from '../failures.ts'
import type { Spool } from '../spool.ts'
import { doAfter } from './after-action.ts'
import { compareListing } from './compare.ts'
import type { HandOffStep } from './fetch-file.ts'
import { fetchReady } from './fetch-lanes.ts'

export interface VisitDeps extends ConnectionDeps {
  pool: Database['pool']
  clock: Clock
  log: Logger
  spool: Spool
  node(): string
  /** Publishes the message of a source in mode announce; gives the task's id. */
  announce(source: StoredSource, plan: CompleteSource): Promise<string>
  /** How an exchange is routed. */
  addressing: Addressing
  /** A file was handed over: its import waits in these queues. */
  onFetched(task: string, queues: string[]): void
  /** Points at which a node may end; for tests. */
  reached?: ((step: HandOffStep | 'after-done') => void) | undefined
}

/** A source that another one still visits is looked at again so soon. */
const BUSY_MS = 2_000
/** A spool that is full is looked at again so soon. */
const SPOOL_FULL_MS = 10_000
/** Remote files are moved and deleted so many at a time, and for so long before the poll goes on. */
const AFTER_BATCH = 500
const AFTER_MS = 60_000

/**
 * One visit of a source, by one node at a time: moves and deletes what is imported, and, if its time has come, lists it and
 * fetches what is new and complete. What fails is noted in the source and on its files; rejects only when the ledger is away, or
 * `signal` aborts.
 */
export async function visitSource(due: DueSource, deps: VisitDeps, signal: AbortSignal): Promise<void> {
  const { pool } = deps
  const { source } = due
  const node = deps.node()
  if (!(await hold(pool, node, lockOfSource(source.id)))) {
    if (due.poll) await dueAgain(pool, source.id, BUSY_MS)
    return
  }
  try {
    const plan = completeSource(source.settings)
    const report = await visit(due, plan, deps, signal)
    if (!report) return
    const { againMs, ...kept } = report
    await savePoll(pool, source.id, kept, isTriedAgain(kept, plan) ? { backoff: true } : { inMs: againMs })
    tell(deps.log, source, kept)
  } finally {
    await release(pool, node, lockOfSource(source.id))
  }
}

/** `againMs`: when the files that are left can be done something about. */
type Report = PollReport & { againMs: number | null }

/**
 * Whether a poll that failed is tried before its next time. Not a refused login: it would be refused again, and accounts are
 * locked for that. And not what only people ask for: they see it.
 */
function isTriedAgain({ error }: PollReport, { cron }: CompleteSource): boolean {
  return error !== null && error.layer !== 'login' && cron !== undefined
}

/** Undefined when it was not polled. */
async function visit(
  { source, poll }: DueSource,
  plan: CompleteSource,
  deps: VisitDeps,
  signal: AbortSignal,
): Promise<Report | undefined> {
  const { clock } = deps
  const from = clock.now()
  const report = emptyReport()
  let remote: RemoteFiles | undefined
  // What has no signal of its own ends with the connection.
  const close = () => void remote?.close()
  signal.addEventListener('abort', close)
  try {
    if (poll && plan.mode === 'announce') report.announced = await deps.announce(source, plan)
    else {
      remote = await connectSource(source, deps, signal)
      await doPendingAfter(remote, source, plan, deps)
      if (poll) await pollSource(remote, source, plan, report, deps, signal)
    }
  } catch (error) {
    if (signal.aborted || isAboutDatabase(error)) throw error
    report.error = pollFailure(error)
    if (!poll) await postponeAll(deps.pool, source, report.error.message)
  } finally {
    signal.removeEventListener('abort', close)
    await remote?.close()
  }
  if (!poll) return undefined
  return { ...report, tookMs: Math.round(clock.now() - from) }
}

function emptyReport(): Report {
  return {
    startedAt: new Date().toISOString(),
    tookMs: 0,
    entries: 0,
    files: 0,
    new: 0,
    changed: 0,
    incomplete: 0,
    left: 0,
    fetched: 0,
    bytes: 0,
    refused: { count: 0, first: [] },
    failed: { count: 0, first: [] },
    error: null,
    againMs: null,
  }
}

async function pollSource(
  remote: RemoteFiles,
  source: StoredSource,
  plan: CompleteSource,
  report: Report,
  deps: VisitDeps,
  signal: AbortSignal,
): Promise<void> {
  const { pool } = deps
  await resetFetching(pool, source.id)
  Object.assign(report, await compareListing(pool, remote, source.id, plan, signal))
  const from = { id: source.id, name: source.name, plan }
  const connect = () => connectSource(source, deps, signal)
  const lanes = { ...deps, lock: lockOfSource(source.id), connect }
  const { isSpoolFull, ...fetched } = await fetchReady(remote, from, lanes, signal)
  const { ready } = plan
  const waiting = await waitingFiles(pool, source.id, ready.kind === 'stable' ? ready.forMs : null)
  Object.assign(report, fetched, waiting, isSpoolFull && { againMs: SPOOL_FULL_MS })
}

/** One that cannot be moved or deleted holds up neither the others nor the poll. */
async function doPendingAfter(
  remote: RemoteFiles,
  source: StoredSource,
  plan: CompleteSource,
  { pool, clock, reached }: VisitDeps,
): Promise<void> {
  const until = clock.now() + AFTER_MS
  while (clock.now() < until) {
    const files = await pendingAfter(pool, source.id, AFTER_BATCH)
    if (files.length === 0) return
    for (const file of files) {
      try {
        const end = await doAfter(remote, plan, file)
        reached?.('after-done')
        await saveAfter(pool, file.id, end)
      } catch (error) {
        if (isAboutDatabase(error) || endsConnection(error)) throw error
        await postponeAfter(pool, [file.id], messageOf(error))
      }
    }
  }
}

/** The server was visited for them alone, and cannot be reached. */
async function postponeAll(pool: Database['pool'], source: StoredSource, error: string): Promise<void> {
  for (;;) {
    const files = await pendingAfter(pool, source.id, AFTER_BATCH)
    if (files.length === 0) return
    await postponeAfter(
      pool,
      files.map(({ id }) => id),
      error,
    )
  }
}

function tell(log: Logger, { id, name }: StoredSource, report: PollReport): void {
  const { error, fetched, failed, tookMs } = report
  if (error) log.warn({ event: 'poll-failed', source: id, name, ...error }, `Cannot poll "${name}": ${error.message}`)
  else if (fetched + failed.count > 0) {
    log.info({ event: 'source-polled', source: id, name, fetched, failed: failed.count, tookMs })
  }
}
