import { type Kysely, sql } from 'kysely'
import type { Status } from '../task/status.ts'
import type { Tables } from './database/tables.ts'

/** Why a task waits although it was due a minute ago. */
export type OverdueReason = 'queue-paused' | 'no-consumer' | 'consumer-paused' | 'other'

/** accepted = succeeded + dead + cancelled + live + pruned + unaccounted; unaccounted is 0, or something is wrong. */
export interface Accounting {
  accepted: number
  succeeded: number
  dead: number
  cancelled: number
  live: number
  pruned: number
  unaccounted: number
  byStatus: Record<Status, number>
  overdue: Record<OverdueReason, number>
}

/** Per queue: the waiting tasks that were due a minute ago, how many and since when, and why they wait. */
export const OVERDUE = sql<{ queue: string; tasks: number; oldest: string; reason: OverdueReason }>`
  select late.*, case
    when q.paused then 'queue-paused'
    when q.name is null then 'other'
    when not exists (select from consumers c where c.queue = late.queue) then 'no-consumer'
    when not exists (select from consumers c where c.queue = late.queue and not c.paused) then 'consumer-paused'
    else 'other' end as reason
  from (
    select queue, count(*) as tasks, min(due_at) as oldest from tasks
    where status in ('pending', 'retrying') and due_at < now() - interval '60 s'
    group by queue
  ) late left join queues q on q.name = late.queue`

/** The counters and a recount of every task, in one snapshot: one statement. */
export async function readAccounting(db: Kysely<Tables>): Promise<Accounting> {
  const { rows } = await sql<Record<Status | OverdueReason | 'accepted' | 'pruned', number>>`
    with sums as (
      select coalesce(sum(accepted), 0)::bigint as accepted, coalesce(sum(pruned), 0)::bigint as pruned from counters
    ), recount as (
      select
        count(*) filter (where status = 'pending') as pending,
        count(*) filter (where status = 'queued') as queued,
        count(*) filter (where status = 'running') as running,
        count(*) filter (where status = 'retrying') as retrying,
        count(*) filter (where status = 'succeeded') as succeeded,
        count(*) filter (where status = 'dead') as dead,
        count(*) filter (where status = 'cancelled') as cancelled
      from tasks
    ), overdue as (
      select
        coalesce(sum(tasks) filter (where reason = 'queue-paused'), 0)::bigint as "queue-paused",
        coalesce(sum(tasks) filter (where reason = 'no-consumer'), 0)::bigint as "no-consumer",
        coalesce(sum(tasks) filter (where reason = 'consumer-paused'), 0)::bigint as "consumer-paused",
        coalesce(sum(tasks) filter (where reason = 'other'), 0)::bigint as other
      from (${OVERDUE}) queues_overdue
    )
    select * from sums, recount, overdue`.execute(db)
  const row = rows[0]
  if (!row) throw new Error('The accounting gave no row')
  const { accepted, pruned, pending, queued, running, retrying, succeeded, dead, cancelled, ...overdue } = row
  const live = pending + queued + running + retrying
  return {
    accepted,
    succeeded,
    dead,
    cancelled,
    live,
    pruned,
    unaccounted: accepted - (succeeded + dead + cancelled + live + pruned),
    byStatus: { pending, queued, running, retrying, succeeded, dead, cancelled },
    overdue,
  }
}
