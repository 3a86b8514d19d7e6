import { posix } from 'node:path'
import { FileFault } from '../files/file-fault.ts'
import { openFile } from '../files/open-file.ts'
import { type RemoteEntry, RemoteFailure, type RemoteFile, type RemoteFiles } from '../files/remote-files.ts'
import type { StoredSource } from '../store/sources/read.ts'
import { type CompleteSource, completeSource } from '../task/source/defaults.ts'
import type { PollFailure, Reject, ServerIdentity } from '../task/source/state.ts'
import { type ConnectionDeps, connectSource, identityOf } from './connection.ts'
import { pollFailure } from './failures.ts'
import type { Spool } from './spool.ts'
import { contentType } from './visit/fetch-file.ts'
import { listSource } from './visit/listing.ts'

export interface TryDeps extends ConnectionDeps {
  spool: Spool
}

/** An entry of a directory, as it is shown. */
export interface ShownEntry {
  kind: RemoteFile['kind'] | 'refused'
  path: string
  /** In bytes. */
  size: number | null
  modified: string | null
  /** Why its name is not used. */
  reason?: string
}

/** The beginning of the first file that would be taken. */
export interface Preview {
  path: string
  contentType: string | null
  /** JSON texts, as they would be payloads. */
  records: string[]
  rejects: Reject[]
  /** Why it could not be read (on). */
  error: string | null
}

export interface SourceTest {
  ok: boolean
  tookMs: number
  /** Who answered. */
  greeting: string | null
  identity: ServerIdentity | null
  tlsVersion: string | null
  /** The first files that would be taken, and how many were looked at. */
  files: ShownEntry[]
  looked: number
  preview: Preview | null
  failure: PollFailure | null
}

const FILES_SHOWN = 20
/** A test need not list everything. */
const MOST_LOOKED = 2_000
const PREVIEW_BYTES = 512 * 1024
const PREVIEW_RECORDS = 10

/** A server that is slow is told of, not waited for. */
const PATIENCE_MS = 50_000

export interface LookOptions {
  /** How long a look may take as a whole, in milliseconds. */
  patienceMs?: number
  signal?: AbortSignal
}

/** What a look at a server is about. */
type Stage = 'connect' | 'list' | 'read'
const DOING: Record<Stage, string> = {
  connect: 'connecting and logging in',
  list: 'listing',
  read: 'reading the first file',
}

/** Runs a look; when it takes too long, it fails in the layer where it stands. */
async function patiently<T>(
  { clock }: TryDeps,
  { patienceMs = PATIENCE_MS, signal }: LookOptions,
  look: (signal: AbortSignal, enter: (stage: Stage) => void) => Promise<T>,
): Promise<T> {
  let at: Stage = 'connect'
  const late = new AbortController()
  const cancel = clock.after(patienceMs, () => late.abort(tooLate(at, patienceMs)))
  try {
    return await look(AbortSignal.any([late.signal, ...(signal ? [signal] : [])]), (stage) => {
      at = stage
    })
  } finally {
    cancel()
  }
}

function tooLate(stage: Stage, ms: number): RemoteFailure {
  const message =
    `The server was not done with ${DOING[stage]} after ${ms / 1_000} s: is it overloaded, or does a firewall hold what it sends? ` +
    'Try again, or a smaller directory'
  return new RemoteFailure(stage, 'timeout', message)
}

/** Connects, lists and reads as a poll would, and takes nothing. What fails is part of the answer, with its layer. */
export async function testSource(source: StoredSource, deps: TryDeps, options: LookOptions = {}): Promise<SourceTest> {
  const from = deps.clock.now()
  const test: SourceTest = {
    ok: false,
    tookMs: 0,
    greeting: null,
    identity: null,
    tlsVersion: null,
    files: [],
    looked: 0,
    preview: null,
    failure: null,
  }
  try {
    await patiently(deps, options, (signal, enter) => tryOut(source, deps, test, signal, enter))
  } catch (error) {
    if (options.signal?.aborted) throw error
    test.failure = pollFailure(error)
    // Who it was that is not trusted: somebody may want to.
    if (error instanceof RemoteFailure) test.identity ??= identityOf(error.identity) ?? null
  }
  test.tookMs = Math.round(deps.clock.now() - from)
  return test
}

async function tryOut(
  source: StoredSource,
  deps: TryDeps,
  test: SourceTest,
  signal: AbortSignal,
  enter: (stage: Stage) => void,
): Promise<void> {
  const plan = completeSource(source.settings)
  let remote = await connectSource(source, deps, signal)
  try {
    tellIdentity(test, remote)
    enter('list')
    const first = await look(remote, plan, test, signal)
    if (test.looked >= MOST_LOOKED) {
      // A listing that was broken off may have cost the connection.
      await remote.close()
      enter('connect')
      remote = await connectSource(source, deps, signal)
    }
    enter('read')
    if (first) test.preview = await previewOf(remote, plan, first, deps.spool, signal)
    test.ok = test.preview?.error == null
  } finally {
    await remote.close()
  }
}

function tellIdentity(test: SourceTest, { identity }: RemoteFiles): void {
  test.greeting = identity.greeting
  test.identity = identityOf(identity) ?? null
  test.tlsVersion = identity.tls?.version ?? null
}

async function look(
  remote: RemoteFiles,
  plan: CompleteSource,
  test: SourceTest,
  signal: AbortSignal,
): Promise<RemoteFile | undefined> {
  let first: RemoteFile | undefined
  for await (const entry of listSource(remote, plan, signal)) {
    test.looked++
    if (entry.kind === 'file') {
      first ??= entry.file
      if (test.files.length < FILES_SHOWN) test.files.push(shownEntry(entry.file))
    }
    if (test.looked >= MOST_LOOKED) break
  }
  return first
}

/** Through the spool: parsers read files. */
async function previewOf(
  remote: RemoteFiles,
  plan: CompleteSource,
  { path, size }: RemoteFile,
  spool: Spool,
  signal: AbortSignal,
): Promise<Preview> {
  const preview: Preview = { path, contentType: contentType(path, plan) ?? null, records: [], rejects: [], error: null }
  const spooled = await spool.receive(beginning(remote.read(path, { signal })))
  try {
    const isCut = size === null || spooled.size < size
    const batches = openFile({
      path: spool.pathOf(spooled.name),
      name: posix.basename(path),
      format: plan.format,
      compression: plan.compression,
    })
    await gather(preview, batches, isCut)
  } finally {
    spool.release(spooled.name)
    await spool.remove(spooled.name)
  }
  return preview
}

async function* beginning(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let left = PREVIEW_BYTES
  for await (const chunk of chunks) {
    yield chunk.subarray(0, left)
    left -= chunk.length
    if (left <= 0) return
  }
}

/** Where the beginning of a file is cut off, it ends too early: that is no fault of the file. */
async function gather(preview: Preview, batches: ReturnType<typeof openFile>, isCut: boolean): Promise<void> {
  try {
    for await (const { entries } of batches) {
      for (const entry of entries) {
        if (preview.records.length + preview.rejects.length >= PREVIEW_RECORDS) return
        if ('json' in entry) preview.records.push(entry.json)
        else preview.rejects.push({ number: entry.number, line: entry.line, reason: entry.reason, raw: entry.raw })
      }
    }
  } catch (error) {
    if (!(error instanceof FileFault)) throw error
    const isOfCut = isCut && ['truncated', 'malformed'].includes(error.code)
    if (!isOfCut) preview.error = error.message
    else if (preview.records.length + preview.rejects.length === 0) {
      preview.error = `Its first ${PREVIEW_BYTES} bytes alone cannot be read: it has to be imported to see its records`
    }
  }
}

/** What is in a directory of a source's server, as it is; the polled one by default. Rejects as RemoteFiles do. */
export async function browseSource(
  source: StoredSource,
  deps: TryDeps,
  { path, limit, ...options }: LookOptions & { path?: string | undefined; limit: number },
): Promise<{ path: string; entries: ShownEntry[]; more: boolean }> {
  const directory = path ?? completeSource(source.settings).directory
  return patiently(deps, options, async (signal, enter) => {
    const remote = await connectSource(source, deps, signal)
    enter('list')
    try {
      const entries: ShownEntry[] = []
      for await (const entry of remote.list(directory, { signal })) {
        if (entries.length === limit) return { path: directory, entries, more: true }
        entries.push(shownEntry(entry))
      }
      return { path: directory, entries, more: false }
    } finally {
      await remote.close()
    }
  })
}

function shownEntry(entry: RemoteEntry): ShownEntry {
  if (entry.kind === 'refused') {
    const { directory, name, reason } = entry
    return { kind: 'refused', path: posix.join(directory, name), size: null, modified: null, reason }
  }
  const { kind, path, size, modifiedAt, rawModifiedAt } = entry
  return { kind, path, size, modified: modifiedAt ?? rawModifiedAt }
}
