import type { KnownFile, ListedFile } from '../../store/files/listing.ts'
import type { CompleteSource } from '../../task/source/defaults.ts'

/** A listed file, and whether its listing tells the time to the second. */
export interface Seen extends ListedFile {
  isExact: boolean
}

export type Verdict =
  /** A version that was not known. */
  | { kind: 'fresh'; generation: number; status: 'seen' | 'ready' }
  /** A version that is known and not fetched yet. */
  | { kind: 'again'; status: 'seen' | 'ready'; stable: number }
  /** The listing alone does not tell whether it is the known version. */
  | { kind: 'ask' }
  | { kind: 'unchanged' }

/**
 * What a listing says about one file. Listings are compared with listings, text with text, because a server's clock and zone
 * are its own; and a text without a year changes with the calendar, so such a change is asked about.
 */
export function judgeListed(seen: Seen, known: KnownFile | null, ready: CompleteSource['ready']): Verdict {
  if (!known) return { kind: 'fresh', generation: 1, status: atFirst(ready) }
  const isSame = isSameSize(seen.size, known.size) && seen.modified === known.modified
  switch (known.status) {
    case 'seen':
    case 'ready':
    case 'fetching': {
      const stable = isSame ? known.stable + 1 : 1
      const stableMs = isSame ? known.stableMs : 0
      // A marker is judged when the whole listing is known.
      const wasReady = known.status !== 'seen' && isSame
      return { kind: 'again', stable, status: wasReady || isStable(ready, stable, stableMs) ? 'ready' : 'seen' }
    }
    case 'importing':
    case 'done':
    case 'failed':
    case 'skipped':
      // A change that the listing does not show is asked for once, when it can have come no more.
      if (isSame && (!known.unsure || !known.sureNow)) return { kind: 'unchanged' }
      return mayBeSame(seen, known) ? { kind: 'ask' } : fresh(known, ready)
    default:
      return known.status satisfies never
  }
}

/** What an exact answer to `ask` says; null: the file is gone since it was listed. */
export function judgeAsked(
  seen: Seen,
  known: KnownFile,
  now: { size: number | null; modifiedAt: string | null } | null,
  ready: CompleteSource['ready'],
): Verdict {
  if (now === null) return { kind: 'unchanged' }
  if (!isSameSize(now.size, known.size)) return fresh(known, ready)
  const exact = exactTime(known)
  if (now.modifiedAt === null || exact === null) {
    // A server that never tells: by the listing, whose text may have lost its time of day, or won it.
    return seen.modified === known.modified || isSameDay(seen.modified, known.modified)
      ? { kind: 'unchanged' }
      : fresh(known, ready)
  }
  return isSameInstant(now.modifiedAt, exact) ? { kind: 'unchanged' } : fresh(known, ready)
}

function fresh(known: KnownFile, ready: CompleteSource['ready']): Verdict {
  return { kind: 'fresh', generation: known.generation + 1, status: atFirst(ready) }
}

function atFirst(ready: CompleteSource['ready']): 'seen' | 'ready' {
  return ready.kind === 'at-once' ? 'ready' : 'seen'
}

function isStable(ready: CompleteSource['ready'], stable: number, stableMs: number): boolean {
  if (ready.kind === 'stable') return stable >= ready.listings && stableMs >= ready.forMs
  return ready.kind === 'at-once'
}

/** One of the two times is not told to the second, so that they cannot be compared. */
function mayBeSame(seen: Seen, known: KnownFile): boolean {
  return isSameSize(seen.size, known.size) && !(seen.isExact && isInstant(known.modified))
}

/** A server that does not tell a size has none to compare. */
function isSameSize(one: number | null, other: number | null): boolean {
  return one === null || other === null || one === other
}

/** To the second; null when the server has not told it. */
export function exactTime({ exact, modified }: Pick<KnownFile, 'exact' | 'modified'>): string | null {
  return exact ?? (isInstant(modified) ? modified : null)
}

export function isInstant(time: string | null): time is string {
  return time !== null && /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}/.test(time)
}

/** To the second: listings and answers tell different fractions. */
export function isSameInstant(one: string, other: string): boolean {
  return one.slice(0, SECONDS) === other.slice(0, SECONDS)
}
const SECONDS = '2025-01-31T10:00:00'.length

/** `Jan 31 10:00` and `Jan 31  2025`: what `ls` shows of a file that becomes half a year old. */
function isSameDay(one: string | null, other: string | null): boolean {
  const [a, b] = [one, other].map((text) => /^(\w{3}\s+\d{1,2})\s+(\d{4}|\d{1,2}:\d{2})$/.exec(text?.trim() ?? ''))
  if (!a || !b) return false
  const [dayA, dayB] = [a[1], b[1]].map((day) => day?.replace(/\s+/g, ' '))
  return dayA === dayB && a[2]?.includes(':') !== b[2]?.includes(':')
}
