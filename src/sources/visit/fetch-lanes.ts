import type { RemoteFiles } from '../../files/remote-files.ts'
import { messageOf } from '../../runtime/errors.ts'
import { type Database, isAboutDatabase } from '../../store/database/database.ts'
import { beginFetch, endFetch, type FetchEnd, type ReadyFile, readyFiles } from '../../store/files/fetching.ts'
import type { PollFailure } from '../../task/source/state.ts'
import { endsConnection, pollFailure } from '../failures.ts'
import type { SpoolRoom } from '../spool.ts'
import { type FetchDeps, type FetchedFrom, fetchFile } from './fetch-file.ts'

export interface LanesDeps extends FetchDeps {
  pool: Database['pool']
  /** Opens another connection to the server. */
  connect(): Promise<RemoteFiles>
  /** A file was handed over: its import waits in these queues. */
  onFetched(task: string, queues: string[]): void
}

export interface FetchedFiles {
  fetched: number
  bytes: number
  failed: { count: number; first: (PollFailure & { path: string })[] }
  /** Files were left because the spool has no room for them. */
  isSpoolFull: boolean
}

const FAILURES_SHOWN = 20

/**
 * Fetches the files that are complete, over as many connections as the source allows, and no more files than one poll may, or
 * than the spool has room for. A file that fails holds up no other; a connection that does is replaced, once for each file.
 */
export async function fetchReady(
  first: RemoteFiles,
  source: FetchedFrom,
  deps: LanesDeps,
  signal: AbortSignal,
): Promise<FetchedFiles> {
  const { plan, id } = source
  const files = await readyFiles(deps.pool, id, plan.limits.filesPerPoll)
  const came: FetchedFiles = { fetched: 0, bytes: 0, failed: { count: 0, first: [] }, isSpoolFull: false }
  const room = files.length > 0 ? await deps.spool.room() : NO_ROOM
  const lanes = Math.min(plan.connections, files.length)
  await Promise.all(
    Array.from({ length: lanes }, (_, index) =>
      lane(index === 0 ? first : undefined, files, room, source, came, deps, signal),
    ),
  )
  return came
}

/** Works on files until there are none; gives up when it cannot get a connection. */
async function lane(
  given: RemoteFiles | undefined,
  files: ReadyFile[],
  room: SpoolRoom,
  source: FetchedFrom,
  came: FetchedFiles,
  deps: LanesDeps,
  signal: AbortSignal,
): Promise<void> {
  const { pool } = deps
  let remote = given
  try {
    while (!signal.aborted) {
      remote ??= await deps.connect().catch(() => undefined)
      const file = remote && files.shift()
      if (!remote || !file || !takesRoom(room, file, came)) return
      if (!(await beginFetch(pool, file.id))) continue
      const { end, lost, isSpoilt } = await fetchOne(remote, file, source, came, deps, signal)
      if (lost) return
      if (end) await endFetch(pool, file.id, end, isFailedAction(end, source))
      if (!isSpoilt) continue
      if (remote !== given) await remote.close()
      remote = undefined
    }
  } finally {
    if (remote && remote !== given) await remote.close()
  }
}

/** The limit is for what has come: one file more may go beyond it, or a large one would never come. */
function takesRoom(room: SpoolRoom, file: ReadyFile, came: FetchedFiles): boolean {
  const size = file.size ?? 0
  if (room.underLimit > 0 && size <= room.onDisk) {
    room.underLimit -= size
    room.onDisk -= size
    return true
  }
  if (!came.isSpoolFull) note(came, file, { layer: 'spool', reason: 'full', message: SPOOL_FULL })
  came.isSpoolFull = true
  return false
}

const NO_ROOM: SpoolRoom = { underLimit: 0, onDisk: 0 }
const SPOOL_FULL =
  'What was fetched and is not imported yet fills the spool (SPOOL_LIMIT, or its disk): fetching goes on when imports have ended'

interface FetchedOne {
  end?: FetchEnd
  lost?: boolean
  /** The connection is of no use any more. */
  isSpoilt: boolean
}

async function fetchOne(
  remote: RemoteFiles,
  file: ReadyFile,
  source: FetchedFrom,
  came: FetchedFiles,
  deps: LanesDeps,
  signal: AbortSignal,
): Promise<FetchedOne> {
  try {
    const fetched = await fetchFile(remote, source, file, deps, signal)
    switch (fetched.kind) {
      case 'taken':
        came.fetched++
        came.bytes += fetched.bytes
        if (fetched.task !== null) deps.onFetched(fetched.task, fetched.queues)
        return { isSpoilt: false }
      case 'lost':
        return { lost: true, isSpoilt: false }
      case 'vanished':
        return { end: fetched, isSpoilt: false }
      case 'changed':
        note(came, file, { layer: 'read', reason: 'changed', message: fetched.error })
        // Reading may have been broken off.
        return { end: fetched, isSpoilt: true }
      case 'again':
      case 'failed':
      case 'skipped':
        note(came, file, { layer: 'read', reason: fetched.kind, message: fetched.error })
        return { end: fetched, isSpoilt: false }
      default:
        return fetched satisfies never
    }
  } catch (error) {
    // This node ends, or the ledger is away: the next one who has the source begins anew.
    if (signal.aborted || isAboutDatabase(error)) throw error
    note(came, file, pollFailure(error))
    return { end: { kind: 'again', error: messageOf(error) }, isSpoilt: endsConnection(error) }
  }
}

function note({ failed }: FetchedFiles, { path }: ReadyFile, failure: PollFailure): void {
  failed.count++
  if (failed.first.length < FAILURES_SHOWN) failed.first.push({ path, ...failure })
}

function isFailedAction(end: FetchEnd, { plan }: FetchedFrom): boolean {
  return end.kind === 'failed' && plan.failed.kind === 'move'
}
