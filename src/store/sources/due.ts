import type { Pool } from 'pg'
import { inTransaction, prepared, type Queryable } from '../database/statement.ts'
import { type NextPoll, timeOf } from './change.ts'
import { SOURCE_COLUMNS, type SourceRow, type StoredSource, storedSource } from './read.ts'

/** Sources that are polled at all. */
const ACTIVE = 'not s.paused and s.alert is null and s.gone_at is null'

/** What the node holds that visits a source. */
export const lockOfSource = (id: string): string => `source:${id}`

/** The node that visited it is gone, and has left its lock: what it was due for is to be done again. */
const CUT_SHORT = `exists (select from locks l where l.name = 'source:' || s.id::text
  and not exists (select from nodes n where n.id = l.node and n.dead_at is null and n.left_at is null))`

/** A source that is to be visited. */
export interface DueSource {
  source: StoredSource
  /** Its time has come; otherwise only files that were imported wait to be moved or deleted. */
  poll: boolean
}

/**
 * Takes up to `limit` sources whose time has come by Postgres's clock and that nobody else is taking, and moves each on to
 * what `next` says, all in one transaction: no other node gets the same time (PROTOCOL 24 for sources).
 */
export async function takeDueSources(
  pool: Pool,
  limit: number,
  next: (source: StoredSource, now: number) => NextPoll,
): Promise<DueSource[]> {
  return inTransaction(pool, async (tx) => {
    const rows = await prepared<SourceRow & { now: string; due: boolean }>(tx, 'due-sources', DUE, [limit])
    const due = rows.map(({ now, due: poll, ...row }) => ({ source: storedSource(row), now: Date.parse(now), poll }))
    const polled = due.filter(({ poll }) => poll)
    await prepared(tx, 'advance-sources', ADVANCE, [
      polled.map(({ source }) => source.id),
      polled.map(({ source, now }) => timeOf(next(source, now))),
    ])
    const ids = due.map(({ source }) => source.id)
    await prepared(tx, 'forget-visits', FORGET_VISITS, [ids.map(lockOfSource)])
    await putOffAfter(tx, ids)
    return due.map(({ source, poll }) => ({ source, poll }))
  })
}

const DUE = `
  select ${SOURCE_COLUMNS}, clock_timestamp() as now, s.next_poll_at <= now() or ${CUT_SHORT} as due
  from sources s
  where ${ACTIVE} and (s.next_poll_at <= now() or ${CUT_SHORT}
    or exists (select from files f where f.source = s.id and f.after = 'pending' and f.after_at <= now()))
  order by s.next_poll_at limit $1 for update skip locked`

const ADVANCE = `
  update sources s set next_poll_at = n.at from unnest($1::uuid[], $2::timestamptz[]) as n(id, at) where s.id = n.id`

/** The visits of nodes that are gone. */
const FORGET_VISITS = `
  delete from locks l where l.name = any($1::text[])
    and not exists (select from nodes n where n.id = l.node and n.dead_at is null and n.left_at is null)`

/** How long others leave the files of a taken source alone, whose remote files are to be moved or deleted. */
export const TAKEN_MS = 30_000

async function putOffAfter(tx: Queryable, sources: string[]): Promise<void> {
  await prepared(
    tx,
    'put-off-after',
    `update files set after_at = now() + $2 * interval '1 ms'
     where source = any($1::uuid[]) and after = 'pending' and after_at <= now()`,
    [sources, TAKEN_MS],
  )
}

/** Milliseconds until a source is due, 0 when one is; undefined when none will be by itself. */
export async function nextSourceDue(pool: Pool): Promise<number | undefined> {
  const rows = await prepared<{ delayMs: number | null }>(
    pool,
    'next-source',
    `select (greatest(0, extract(epoch from at - now())) * 1000)::float8 as "delayMs"
     from (
       select least(
         (select min(s.next_poll_at) from sources s where ${ACTIVE} and s.next_poll_at < 'infinity'),
         (select min(f.after_at) from files f join sources s on s.id = f.source
          where f.after = 'pending' and ${ACTIVE}),
         (select now() from sources s where ${ACTIVE} and ${CUT_SHORT} limit 1)) as at
     ) next where at is not null`,
    [],
  )
  return rows[0]?.delayMs ?? undefined
}

/** Makes a source due again that was taken while somebody else still visits it. */
export async function dueAgain(pool: Pool, id: string, delayMs: number): Promise<void> {
  await pool.query(
    `update sources set next_poll_at = least(next_poll_at, now() + $2 * interval '1 ms') where id = $1`,
    [id, delayMs],
  )
}

/** What became of a wish to poll now. */
export type PollWish = 'asked' | 'paused' | 'alert' | 'gone' | 'unknown'

/** Makes a source due now; a poll that is under way is followed by another. */
export async function askForPoll(pool: Pool, id: string): Promise<PollWish> {
  const { rows } = await pool.query<{ wish: PollWish }>(
    `update sources s set next_poll_at = case when ${ACTIVE} then least(next_poll_at, now()) else next_poll_at end
     where s.id = $1
     returning case when s.paused then 'paused' when s.alert is not null then 'alert' when s.gone_at is not null then 'gone'
       else 'asked' end as wish`,
    [id],
  )
  return rows[0]?.wish ?? 'unknown'
}
