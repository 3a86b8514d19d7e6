import { v7 as uuidv7 } from 'uuid'
import type { RemoteFile, RemoteFiles } from '../../files/remote-files.ts'
import type { Database } from '../../store/database/database.ts'
import {
  endListing,
  type KnownFile,
  listingTime,
  markComplete,
  type NewFile,
  notableFiles,
  type SeenAgain,
  saveListed,
  saveListedStill,
  saveUnchanged,
} from '../../store/files/listing.ts'
import type { CompleteSource } from '../../task/source/defaults.ts'
import { judgeAsked, judgeListed, type Seen, type Verdict } from './judge-listing.ts'
import { listSource } from './listing.ts'

export interface Compared {
  entries: number
  files: number
  new: number
  changed: number
  refused: { count: number; first: { name: string; reason: string }[] }
}

/** Files that one statement compares. */
const CHUNK = 5_000
const REFUSED_SHOWN = 20
/** Files of one poll that are asked about one by one; the others wait for the next one. */
const MAX_ASKED = 1_000

/**
 * Lists a source and keeps what is new about it: files that were not known or have changed, and which of them are complete.
 * What is not listed any more and was never fetched is forgotten, but for what lies in directories that cannot be listed.
 * Rejects with RemoteFailure; what was seen until then is kept, and nothing is forgotten.
 */
export async function compareListing(
  pool: Database['pool'],
  remote: RemoteFiles,
  source: string,
  plan: CompleteSource,
  signal: AbortSignal,
): Promise<Compared> {
  const since = await listingTime(pool)
  const comparison = new Comparison(pool, source, plan)
  const { counts } = comparison
  const markers: { path: string; marker: string }[] = []
  const unlisted: string[] = []
  let chunk: Seen[] = []
  for await (const entry of listSource(remote, plan, signal)) {
    counts.entries++
    switch (entry.kind) {
      case 'file':
        counts.files++
        chunk.push(seen(entry.file))
        break
      case 'marker':
        markers.push({ path: entry.path, marker: `${entry.marker.size} ${timeText(entry.marker)}` })
        break
      case 'refused':
        comparison.refuse(entry.entry.name, entry.entry.reason)
        break
      case 'unlisted':
        comparison.refuse(entry.path, entry.reason)
        unlisted.push(entry.path)
        break
      case 'other':
        break
      default:
        entry satisfies never
    }
    if (chunk.length < CHUNK) continue
    await comparison.take(chunk)
    chunk = []
  }
  await comparison.take(chunk)
  // One connection does one thing at a time: only now can it be asked about files.
  await comparison.ask(remote, signal)
  await markComplete(
    pool,
    source,
    markers.filter(({ path }) => comparison.incomplete.has(path)),
  )
  await endListing(pool, source, since, unlisted)
  return counts
}

function seen(file: RemoteFile): Seen {
  return { path: file.path, size: file.size, modified: timeText(file), isExact: file.modifiedAt !== null }
}

function timeText({ modifiedAt, rawModifiedAt }: RemoteFile): string | null {
  return modifiedAt ?? rawModifiedAt
}

class Comparison {
  readonly counts: Compared = { entries: 0, files: 0, new: 0, changed: 0, refused: { count: 0, first: [] } }
  /** Paths of files that are not known to be complete. */
  readonly incomplete = new Set<string>()
  readonly #doubtful: { seen: Seen; known: KnownFile }[] = []

  constructor(
    readonly pool: Database['pool'],
    readonly source: string,
    readonly plan: CompleteSource,
  ) {}

  refuse(name: string, reason: string): void {
    const { refused } = this.counts
    refused.count++
    if (refused.first.length < REFUSED_SHOWN) refused.first.push({ name, reason })
  }

  async take(chunk: readonly Seen[]): Promise<void> {
    if (chunk.length === 0) return
    const fresh: NewFile[] = []
    const again: SeenAgain[] = []
    const still: string[] = []
    for (const { index, known } of await notableFiles(this.pool, this.source, chunk)) {
      const one = chunk[index] as Seen
      const verdict = judgeListed(one, known, this.plan.ready)
      if (verdict.kind === 'ask' && known) this.#doubtful.push({ seen: one, known })
      else if (verdict.kind === 'unchanged' && known) still.push(known.id)
      else this.#note(one, known, verdict, fresh, again)
    }
    await saveListed(this.pool, this.source, { fresh, again })
    await saveListedStill(this.pool, still)
  }

  /** Asks the server about files of which the listing does not tell whether they have changed. */
  async ask(remote: RemoteFiles, signal: AbortSignal): Promise<void> {
    const fresh: NewFile[] = []
    for (const { seen: one, known } of this.#doubtful.slice(0, MAX_ASKED)) {
      const now = await remote.stat(one.path, { signal })
      const verdict = judgeAsked(one, known, now ?? null, this.plan.ready)
      if (verdict.kind === 'unchanged') await saveUnchanged(this.pool, known.id, one.modified, known.sureNow)
      else this.#note(one, known, verdict, fresh, [])
    }
    await saveListed(this.pool, this.source, { fresh, again: [] })
  }

  #note(one: Seen, known: KnownFile | null, verdict: Verdict, fresh: NewFile[], again: SeenAgain[]): void {
    const { path, size, modified } = one
    switch (verdict.kind) {
      case 'fresh':
        if (known) this.counts.changed++
        else this.counts.new++
        fresh.push({ path, size, modified, id: uuidv7(), generation: verdict.generation, status: verdict.status })
        if (verdict.status === 'seen') this.incomplete.add(path)
        return
      case 'again':
        again.push({ path, size, modified, id: known?.id ?? '', status: verdict.status, stable: verdict.stable })
        if (verdict.status === 'seen') this.incomplete.add(path)
        return
      case 'ask':
      case 'unchanged':
        return
      default:
        verdict satisfies never
    }
  }
}
