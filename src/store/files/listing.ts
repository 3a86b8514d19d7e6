import type { Pool } from 'pg'
import type { FileStatus } from '../../task/source/source.ts'
import { prepared } from '../database/statement.ts'

/** A file as a listing tells it. */
export interface ListedFile {
  path: string
  size: number | null
  /** The server's text; equal for an unchanged file. */
  modified: string | null
}

/** What is known of the newest version of a file. */
export interface KnownFile {
  id: string
  generation: number
  status: FileStatus
  size: number | null
  modified: string | null
  /** The time to the second, where the listing does not tell it. */
  exact: string | null
  /** It was fetched so lately that a change might not show in the listing. */
  unsure: boolean
  /** That time is over: asked once more, it is sure. */
  sureNow: boolean
  /** Listings in a row that told the same, and milliseconds since the first of them. */
  stable: number
  stableMs: number
}

/** A listed file that is new, has changed, is not complete yet, or must be asked about. */
export interface Notable {
  /** Its place in what was asked about. */
  index: number
  known: KnownFile | null
}

/**
 * Compares a part of a listing with what is known, in one statement, and gives what is not just as it was. Files that are
 * known and unchanged cost one index probe each and are not in the answer.
 */
export async function notableFiles(pool: Pool, source: string, listed: readonly ListedFile[]): Promise<Notable[]> {
  const rows = await prepared<{ index: number } & { [Key in keyof KnownFile]: KnownFile[Key] | null }>(
    pool,
    'notable-files',
    NOTABLE,
    [source, listed.map(({ path }) => path), listed.map(({ size }) => size), listed.map(({ modified }) => modified)],
  )
  return rows.map(({ index, ...known }) => ({ index, known: known.id === null ? null : (known as KnownFile) }))
}

export const NOTABLE = `
  select i.number::int - 1 as index, f.id, f.generation, f.status, f.size, f.modified, f.exact, f.stable,
    (extract(epoch from now() - f.stable_at) * 1000)::float8 as "stableMs", f.unsure_until is not null as unsure, coalesce(f.unsure_until <= now(), false) as "sureNow"
  from unnest($2::text[], $3::bigint[], $4::text[]) with ordinality as i(path, size, modified, number)
    left join lateral (
      select * from files where source = $1 and path = i.path order by generation desc limit 1
    ) f on true
  where f.id is null or (f.size <> i.size) or f.modified is distinct from i.modified
    or f.status in ('seen', 'ready', 'fetching') or f.unsure_until is not null
    or f.listed_at < now() - interval '1 day'`

/** A version of a file that is seen for the first time. */
export interface NewFile extends ListedFile {
  id: string
  generation: number
  status: 'seen' | 'ready'
}

/** A version that is not fetched yet, seen again. */
export interface SeenAgain extends ListedFile {
  id: string
  status: 'seen' | 'ready'
  stable: number
}

/** Keeps what a part of a listing told. Unknown sources are refused by the database (23503). */
export async function saveListed(
  pool: Pool,
  source: string,
  { fresh, again }: { fresh: readonly NewFile[]; again: readonly SeenAgain[] },
): Promise<void> {
  if (fresh.length > 0) {
    await prepared(pool, 'new-files', NEW_FILES, [
      source,
      fresh.map(({ id }) => id),
      fresh.map(({ path }) => path),
      fresh.map(({ generation }) => generation),
      fresh.map(({ size }) => size),
      fresh.map(({ modified }) => modified),
      fresh.map(({ status }) => status),
    ])
  }
  if (again.length > 0) {
    await prepared(pool, 'files-again', AGAIN, [
      again.map(({ id }) => id),
      again.map(({ size }) => size),
      again.map(({ modified }) => modified),
      again.map(({ status }) => status),
      again.map(({ stable }) => stable),
    ])
  }
}

/** On conflict: another node has seen it, too. */
const NEW_FILES = `
  insert into files (id, source, path, generation, size, modified, status)
  select i.id, $1, i.path, i.generation, i.size, i.modified, i.status
  from unnest($2::uuid[], $3::text[], $4::int[], $5::bigint[], $6::text[], $7::text[])
    as i(id, path, generation, size, modified, status)
  order by i.path
  on conflict do nothing`

const AGAIN = `
  update files f
  set size = i.size, modified = i.modified, status = i.status, stable = i.stable, listed_at = clock_timestamp(),
    stable_at = case when i.stable = 1 then clock_timestamp() else f.stable_at end
  from unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::int[]) as i(id, size, modified, status, stable)
  where f.id = i.id and f.status in ('seen', 'ready')`

/** Notes that files which were fetched before are listed still. */
export async function saveListedStill(pool: Pool, ids: string[]): Promise<void> {
  if (ids.length === 0) return
  await prepared(pool, 'listed-still', 'update files set listed_at = now() where id = any($1::uuid[])', [ids])
}

/** Notes that a file is what it was, whatever text the listing has for its time now. */
export async function saveUnchanged(pool: Pool, id: string, modified: string | null, sure: boolean): Promise<void> {
  await prepared(
    pool,
    'file-unchanged',
    `update files set modified = $2, listed_at = now(), unsure_until = case when $3 then null else unsure_until end
     where id = $1`,
    [id, modified, sure],
  )
}

/** Beside a marker that says nothing new, two listings so far from each other do. */
const OLD_MARKER_MS = 10_000

/**
 * Makes files ready whose markers are there. A marker that already stood for the version before says nothing about this one:
 * then two listings in a row must tell the same.
 */
export async function markComplete(
  pool: Pool,
  source: string,
  marked: readonly { path: string; marker: string }[],
): Promise<void> {
  if (marked.length === 0) return
  await prepared(
    pool,
    'mark-complete',
    `update files f set status = 'ready', marker = m.marker
     from unnest($2::text[], $3::text[]) as m(path, marker)
     where f.source = $1 and f.path = m.path and f.status = 'seen'
       and ((f.stable >= 2 and f.stable_at <= now() - ${OLD_MARKER_MS} * interval '1 ms') or not exists (
         select from files p where p.source = f.source and p.path = f.path and p.generation = f.generation - 1
           and p.marker = m.marker))`,
    [source, marked.map(({ path }) => path), marked.map(({ marker }) => marker)],
  )
}

/**
 * Ends a listing that told of everything but what lies below `unlisted` directories. Files that were never fetched and are not
 * listed any more are forgotten: when they come back, they are new.
 */
export async function endListing(
  pool: Pool,
  source: string,
  since: string,
  unlisted: readonly string[],
): Promise<void> {
  await prepared(
    pool,
    'end-listing',
    `with ended as (update sources set listed_at = $2::timestamptz where id = $1)
     delete from files f where source = $1 and status in ('seen', 'ready') and not asked and listed_at < $2::timestamptz
       and not exists (select from unnest($3::text[]) as d(path) where starts_with(f.path, d.path || '/'))`,
    [source, since, unlisted],
  )
}

/** A file that may be complete by now is not looked for sooner than this. */
const LOOK_AGAIN_MS = 1_000

/** What a source has that is not fetched. */
export interface WaitingFiles {
  /** Seen and not complete. */
  incomplete: number
  /** Complete. */
  left: number
  /** Milliseconds until there will be something to do about them; null: when the source is polled by itself. */
  againMs: number | null
}

/**
 * Files that wait. One that becomes complete by standing still for `stillMs` is looked at when that time is over, and later each
 * time, as long as it goes on to grow; null: none does.
 */
export async function waitingFiles(pool: Pool, source: string, stillMs: number | null): Promise<WaitingFiles> {
  const [row] = await prepared<WaitingFiles>(pool, 'waiting-files', WAITING, [source, stillMs])
  return row ?? { incomplete: 0, left: 0, againMs: null }
}

const WAITING = `
  select count(*) filter (where status = 'seen')::int as incomplete,
    count(*) filter (where status in ('ready', 'fetching'))::int as left,
    (min(case
      when paused then null
      when status = 'ready' then greatest(0, extract(epoch from retry_at - now()) * 1000)
      when status = 'seen' and $2::float8 is not null
        then greatest($2::float8, ${LOOK_AGAIN_MS}, extract(epoch from now() - seen_at) * 250)
      end))::float8 as "againMs"
  from files where source = $1 and status in ('seen', 'ready', 'fetching')`

/** Postgres's time now, with its microseconds; the only clock that polls go by. */
export async function listingTime(pool: Pool): Promise<string> {
  const [row] = await prepared<{ now: string }>(pool, 'listing-time', 'select clock_timestamp()::text as now', [])
  return row?.now ?? ''
}
