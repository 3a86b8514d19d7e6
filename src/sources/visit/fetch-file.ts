import { posix } from 'node:path'
import type { RemoteFile, RemoteFiles } from '../../files/remote-files.ts'
import type { Database } from '../../store/database/database.ts'
import type { FetchEnd, ReadyFile } from '../../store/files/fetching.ts'
import { type HandedOff, handOff } from '../../store/files/hand-off.ts'
import type { Addressing } from '../../store/tasks/insert/insert-addressed.ts'
import type { CompleteSource } from '../../task/source/defaults.ts'
import { formatFor } from '../../task/source/file-format.ts'
import type { ImportPayload } from '../../task/source/import.ts'
import type { ContentType } from '../../task/source/source.ts'
import type { NewTask } from '../../task/task.ts'
import { exchangeTask } from '../exchange-task.ts'
import { atMost, type Spool, type Spooled } from '../spool.ts'
import { isInstant, isSameInstant } from './judge-listing.ts'

/** Points of a hand-off between which a node may end; for tests. */
export type HandOffStep = 'begun' | 'fetched' | 'handed-off'

export interface FetchDeps {
  pool: Database['pool']
  spool: Spool
  node(): string
  /** How an exchange is routed. */
  addressing: Addressing
  /** The name under which the node holds the source. */
  lock: string
  reached?: ((step: HandOffStep) => void) | undefined
}

export interface FetchedFrom {
  id: string
  name: string
  plan: CompleteSource
}

/** `taken`: it was imported or skipped, with so many bytes; `lost`: another node has the source. */
export type Fetched =
  | { kind: 'taken'; bytes: number; task: string | null; queues: string[] }
  | { kind: 'lost' }
  | FetchEnd

/**
 * Brings one complete file into the spool and hands it to the ledger, or says why not. Rejects as RemoteFiles and Spool do;
 * nothing of it is left then but the file's row.
 */
export async function fetchFile(
  remote: RemoteFiles,
  source: FetchedFrom,
  file: ReadyFile,
  deps: FetchDeps,
  signal: AbortSignal,
): Promise<Fetched> {
  const { plan } = source
  const type = contentType(file.path, plan)
  if (type === undefined) {
    return {
      kind: 'skipped',
      error: 'Its format is not known by its extension: exclude it, or give the source a format',
    }
  }
  if (file.size !== null && file.size > plan.limits.fileBytes) return tooLarge(plan)
  const path = file.location ?? file.path
  const before = await versionBefore(remote, path, file, signal)
  if ('kind' in before) return before
  deps.reached?.('begun')
  const spooled = await deps.spool.receive(atMost(remote.read(path, { signal }), before.size ?? plan.limits.fileBytes))
  let isWanted = false
  try {
    deps.reached?.('fetched')
    const end = await judgeFetched(remote, path, before, spooled, plan, signal)
    if (end) return end
    // Unless the answer says otherwise: what was committed is not known when the ledger does not answer.
    isWanted = true
    const taken = await hand(source, file, type, before, spooled, deps)
    isWanted = taken.kind === 'taken' && taken.task !== null
    deps.reached?.('handed-off')
    return taken
  } finally {
    deps.spool.release(spooled.name)
    if (!isWanted) await deps.spool.remove(spooled.name)
  }
}

/** What the version is that is to be read. */
interface Version {
  size: number | null
  /** To the second; null when the server does not tell. */
  time: string | null
  /** The listing told it. */
  isListed: boolean
}

/** A listing that tells the time exactly is enough; otherwise the file is asked about. */
async function versionBefore(
  remote: RemoteFiles,
  path: string,
  file: ReadyFile,
  signal: AbortSignal,
): Promise<Version | FetchEnd> {
  if (file.size !== null && isInstant(file.modified) && !file.asked) {
    return { size: file.size, time: file.modified, isListed: true }
  }
  const now = await remote.stat(path, { signal })
  if (!now) return file.asked ? gone(path) : { kind: 'vanished' }
  if (file.size !== null && now.size !== null && now.size !== file.size) return changed(now, path)
  return { size: now.size ?? file.size, time: now.modifiedAt, isListed: false }
}

async function judgeFetched(
  remote: RemoteFiles,
  path: string,
  before: Version,
  spooled: Spooled,
  plan: CompleteSource,
  signal: AbortSignal,
): Promise<FetchEnd | undefined> {
  // Broken off, which may have cost the connection.
  if (before.size !== null && spooled.size > before.size) return changed(before, path)
  const now = await remote.stat(path, { signal })
  if (now && isOther(now, before)) return changed(now, path)
  if (before.size !== null && spooled.size !== before.size) {
    if (!now) return { kind: 'vanished' }
    return {
      kind: 'again',
      error: `The server sent ${spooled.size} of ${before.size} bytes and said that this was all`,
    }
  }
  // One that was deleted since, too: all of it was read, and it is nowhere else now.
  return before.size === null && spooled.size > plan.limits.fileBytes ? tooLarge(plan) : undefined
}

function isOther(now: RemoteFile, before: Version): boolean {
  if (now.size !== null && before.size !== null && now.size !== before.size) return true
  return now.modifiedAt !== null && before.time !== null && !isSameInstant(now.modifiedAt, before.time)
}

function changed({ size }: { size: number | null }, path: string): FetchEnd {
  const error = `"${path}" was changed while it was fetched: it is fetched again when it is complete`
  return { kind: 'changed', error, size }
}

function gone(path: string): FetchEnd {
  return { kind: 'failed', error: `There is no "${path}" any more` }
}

function tooLarge({ limits }: CompleteSource): FetchEnd {
  return {
    kind: 'failed',
    error: `It has more than ${limits.fileBytes} bytes: raise "limits.fileBytes" if that is right`,
  }
}

async function hand(
  source: FetchedFrom,
  file: ReadyFile,
  type: ContentType,
  version: Version,
  { name, size, sha256 }: Spooled,
  { pool, node, lock, addressing }: FetchDeps,
): Promise<Fetched> {
  const { plan } = source
  const task = importTask(source, file, type, { size, sha256 })
  const handed: HandedOff = await handOff(pool, {
    node: node(),
    lock,
    file: {
      id: file.id,
      source: source.id,
      sha256,
      size,
      spool: name,
      exact: version.isListed ? null : version.time,
      unsure: !version.isListed && version.time !== null,
    },
    task,
    addressing,
    // Who asks for a file again wants it again.
    duplicates: file.asked ? 'flag' : plan.duplicates,
    after: plan.after.kind !== 'none',
  })
  switch (handed.kind) {
    case 'importing':
      return { kind: 'taken', bytes: size, task: task.id, queues: handed.queues }
    case 'duplicate':
      return { kind: 'taken', bytes: size, task: null, queues: [] }
    case 'lost':
      return handed
    default:
      return handed satisfies never
  }
}

/** Which of the import queues is for a file of this name; undefined when its format is not known. */
export function contentType(path: string, { format }: CompleteSource): ContentType | undefined {
  if (format.type !== 'by-extension') return format.type
  const name = posix.basename(path)
  const packed = /^(.*)\.zip$/i.exec(name)?.[1]
  const inside = packed === undefined ? undefined : formatFor(packed, format)
  // What an archive holds is known when it is opened.
  return packed === undefined ? formatFor(name, format)?.type : (inside?.type ?? 'csv')
}

function importTask(
  { id, name, plan }: FetchedFrom,
  file: ReadyFile,
  type: ContentType,
  { size, sha256 }: Pick<Spooled, 'size' | 'sha256'>,
): NewTask {
  const payload: ImportPayload = {
    fileId: file.id,
    sourceId: id,
    source: name,
    path: file.path,
    size,
    sha256,
    contentType: type,
  }
  return exchangeTask('longshore.import', payload, plan, type)
}
