import type { Pool } from 'pg'
import { isFinal, type Status } from '../../../task/status.ts'
import { prepared, type Queryable } from '../../database/statement.ts'
import { tellCompletions } from './completions.ts'

/**
 * Locks tasks and all parents above them until the transaction ends, newest first. What changes several tasks takes
 * all its locks here, in the one order that everybody has, and cannot end in a deadlock (PROTOCOL 23): taking parents
 * only when their children have changed would, as an older task of the batch is held by then. Children are younger
 * than their parents, so they come first.
 */
export async function lockFamilies(tx: Queryable, ids: string[]): Promise<void> {
  await prepared(tx, 'lock-families', LOCK_FAMILIES, [ids])
}

const LOCK_FAMILIES = `
  with recursive family (id, parent_id) as (
    select id, parent_id from tasks where id = any($1::uuid[])
    union
    select p.id, p.parent_id from family f join tasks p on p.id = f.parent_id
  )
  select from tasks where id in (select id from family) order by id desc for update`

/** A child's change into (+1) or out of (-1) a final status; 0 for a child that is new. */
export interface ChildChange {
  parentId: string | null
  status: Status
  by: 1 | 0 | -1
}

/** Those of changed tasks that are final now, as their parents hear of it. */
export function endsOf(rows: readonly Pick<ChildChange, 'parentId' | 'status'>[]): ChildChange[] {
  return rows.flatMap(({ parentId, status }) => (isFinal(status) ? [{ parentId, status, by: 1 as const }] : []))
}

interface Parent {
  id: string
  parentId: string | null
  status: Status
  sealed: boolean
  cancelRequested: boolean
  /** Where a fan-out was addressed to. */
  exchange: string | null
  total: number
  succeeded: number
  dead: number
}

/**
 * Carries children's changes to their parents, and on to the parents' parents (PROTOCOL 20). Runs in the transaction
 * that changed the children, after it did. A sealed parent is final when its last child is, and reopens when a
 * final child is replayed; an attempt of its own that runs, waits or failed decides about any other.
 * The caller has locked the families of what it changed.
 */
export async function settleParents(tx: Queryable, changes: ChildChange[]): Promise<void> {
  const counts = new Map<string, { succeeded: number; dead: number }>()
  for (const { parentId, status, by } of changes) {
    if (parentId === null) continue
    const count = counts.get(parentId) ?? { succeeded: 0, dead: 0 }
    if (status === 'succeeded') count.succeeded += by
    else count.dead += by
    counts.set(parentId, count)
  }
  if (counts.size === 0) return
  const before = await prepared<Parent>(tx, 'lock-counted-parents', LOCK, [[...counts.keys()]])
  const after = before.map((parent) => {
    const count = counts.get(parent.id)
    const counted = {
      ...parent,
      succeeded: parent.succeeded + (count?.succeeded ?? 0),
      dead: parent.dead + (count?.dead ?? 0),
    }
    return { ...counted, status: counted.sealed ? sealedStatus(counted) : counted.status }
  })
  await prepared(tx, 'count-parents', COUNT, [
    after.map((parent) => parent.id),
    after.map((parent) => parent.succeeded),
    after.map((parent) => parent.dead),
    after.map((parent) => parent.status),
  ])
  const isTold = ({ status, exchange }: Parent, index: number) =>
    exchange !== null && isFinal(status) && status !== before[index]?.status
  await tellCompletions(
    tx,
    after.filter(isTold).map(({ id }) => id),
  )
  const upwards = after.flatMap<ChildChange>(({ parentId, status }, index) => {
    const was = before[index]?.status
    if (was === undefined || was === status) return []
    // A sealed parent only moves between running and final.
    return [status === 'running' ? { parentId, status: was, by: -1 } : { parentId, status, by: 1 }]
  })
  await settleParents(tx, upwards)
}

/** What a parent is whose own work succeeded; SETTLE says the same in SQL. */
function sealedStatus({ succeeded, dead, total, cancelRequested }: Parent): Status {
  if (succeeded + dead < total) return 'running'
  if (dead === 0) return 'succeeded'
  return cancelRequested ? 'cancelled' : 'dead'
}

const LOCK = `
  select id, parent_id as "parentId", status, sealed, cancel_requested as "cancelRequested", exchange,
    children_total as total, children_succeeded as succeeded, children_dead as dead
  from tasks where id = any($1::uuid[]) order by id desc for update`

/** A sealed parent is on no node: nobody may give it back or take it for lost when it reopens. */
const COUNT = `
  update tasks p
  set children_succeeded = n.succeeded, children_dead = n.dead, status = n.status,
    node = case when p.sealed then null else p.node end,
    finished_at = case when n.status = p.status then p.finished_at when n.status <> 'running' then now() end,
    error = case
      when n.status = p.status then p.error
      when n.status in ('dead', 'cancelled') then n.dead || ' of ' || p.children_total || ' children did not succeed'
      end
  from unnest($1::uuid[], $2::int[], $3::int[], $4::task_status[]) as n(id, succeeded, dead, status)
  where p.id = n.id`

/** How many children one transaction cancels or replays. */
const CHILDREN_A_BATCH = 2_000

/** The ids of a parent's children that meet `condition` (on `t`), oldest first, a batch at a time; each child once. */
export async function* childrenOf(pool: Pool, parent: string, condition: string): AsyncGenerator<string[]> {
  let last = { createdAt: '-infinity', id: '00000000-0000-0000-0000-000000000000' }
  for (;;) {
    // As text the time keeps its microseconds.
    const { rows } = await pool.query<typeof last>(
      `select t.id, t.created_at::text as "createdAt" from tasks t
       where t.parent_id = $1 and (t.created_at, t.id) > ($2::timestamptz, $3::uuid) and (${condition})
       order by t.created_at, t.id limit $4`,
      [parent, last.createdAt, last.id, CHILDREN_A_BATCH],
    )
    if (rows.length > 0) yield rows.map((row) => row.id)
    if (rows.length < CHILDREN_A_BATCH) return
    last = rows.at(-1) as typeof last
  }
}
