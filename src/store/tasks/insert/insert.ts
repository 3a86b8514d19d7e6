import type { Pool, PoolClient } from 'pg'
import { type Clock, pause, realClock } from '../../../runtime/clock.ts'
import { Problem } from '../../../runtime/errors.ts'
import { isFinal, type Status } from '../../../task/status.ts'
import type { NewTask } from '../../../task/task.ts'
import { exchangeOfLine } from '../../../task/topology/exchange.ts'
import { isAboutDatabase, isConnectionLoss } from '../../database/database.ts'
import { inTransaction, prepared } from '../../database/statement.ts'
import { type Addressing, byAddress, committedAddressed, insertAddressed } from './insert-addressed.ts'
import { type Answers, committedRows, type Inserted, insertRows, mismatch } from './insert-rows.ts'

export interface InsertOptions {
  /** One refused task takes back all of them. */
  allOrNothing?: boolean
  /** How tasks go that are addressed to an exchange; without it none may be. */
  addressing?: Addressing | undefined
  /** How long a commit of unknown result is looked for. */
  resolveWithinMs?: number
  clock?: Clock
}

/**
 * Stores tasks of one node in one commit and answers in their order. Idempotency keys are unique per queue, or exchange: the
 * first task with a key wins. A commit whose result is not known is resolved by the tasks' ids; when that does not succeed in
 * time, it rejects with the problem `unknown`. Rejects with the database's own error when nothing was written.
 */
export async function insertTasks(
  pool: Pool,
  node: string,
  tasks: NewTask[],
  { allOrNothing = false, addressing, resolveWithinMs = 5_000, clock = realClock }: InsertOptions = {},
): Promise<Inserted[]> {
  const { leaders, followers } = byIdempotencyKey(tasks)
  const store = () => storeOnce(pool, node, leaders, allOrNothing, addressing)
  const answers = await withKnownResult(store, () => committed(pool, leaders, addressing), clock, resolveWithinMs)

  for (const [task, leader] of followers) answers.set(task.id, following(task, leader, answers, allOrNothing))
  return tasks.map((task) => answers.get(task.id) as Inserted)
}

/** The answer for a task whose key an earlier one of the batch has. */
function following(task: NewTask, leader: NewTask, answers: Answers, allOrNothing: boolean): Inserted {
  const answer = answers.get(leader.id) as Inserted
  // The leader was refused for a reason of its own: its key is still free.
  if (answer.kind === 'refused') return allOrNothing ? answer : { kind: 'again' }
  const id = answer.kind === 'existing' ? answer.id : leader.id
  return task.fingerprint === leader.fingerprint ? { kind: 'existing', id } : mismatch(task, id)
}

/** Splits off tasks whose queue and idempotency key an earlier one of the batch has. */
function byIdempotencyKey(tasks: NewTask[]): { leaders: NewTask[]; followers: [task: NewTask, leader: NewTask][] } {
  const first = new Map<string, NewTask>()
  const leaders: NewTask[] = []
  const followers: [NewTask, NewTask][] = []
  for (const task of tasks) {
    // A queue's name holds no NUL.
    const key = task.idempotencyKey === null ? undefined : `${task.queue}\0${task.idempotencyKey}`
    const leader = key === undefined ? undefined : first.get(key)
    if (leader) {
      followers.push([task, leader])
      continue
    }
    leaders.push(task)
    if (key !== undefined) first.set(key, task)
  }
  return { leaders, followers }
}

/**
 * Runs `store`; when its connection is lost it may have been committed, or may even still run. The same ids again tell:
 * the statement waits for the first one's end, and a duplicate id means that the first one was committed.
 */
async function withKnownResult(
  store: () => Promise<Answers>,
  readCommitted: () => Promise<Answers>,
  clock: Clock,
  withinMs: number,
): Promise<Answers> {
  try {
    return await store()
  } catch (error) {
    if (!isConnectionLoss(error)) throw error
  }
  const deadline = clock.now() + withinMs
  for (;;) {
    try {
      return await store().catch((error: unknown) => {
        if (isDuplicateId(error)) return readCommitted()
        throw error
      })
    } catch (error) {
      if (!isAboutDatabase(error)) throw error
      if (clock.now() >= deadline) {
        const detail =
          'The connection to the database was lost while the task was stored, so it may or may not exist. ' +
          'Submit it again with an idempotencyKey, or look for it before you do.'
        throw new Problem('unknown', detail, [], { cause: error })
      }
    }
    await pause(clock, 100)
  }
}

function isDuplicateId(error: unknown): boolean {
  const { code, constraint } = error as { code?: string; constraint?: string }
  return code === '23505' && constraint === 'tasks_pkey'
}

/** Thrown inside the transaction of an all-or-nothing insert: takes everything back, and carries the answers out. */
class TakenBack extends Error {
  constructor(readonly answers: Answers) {
    super('a task of this batch was refused')
  }
}

async function storeOnce(
  pool: Pool,
  node: string,
  tasks: NewTask[],
  allOrNothing: boolean,
  addressing: Addressing | undefined,
): Promise<Answers> {
  // Without parents and with each task for itself, one statement is the transaction.
  if (!allOrNothing && tasks.every((task) => task.parentId === null && task.exchange == null))
    return (await insertRows(pool, node, tasks)).answers
  try {
    return await inTransaction(pool, async (tx) => {
      const refused = await lockParents(tx, tasks)
      const allowed = tasks.filter((task) => !refused.has(task.id))
      const { answers, written } = await insertEach(tx, node, allowed, addressing)
      for (const [id, refusal] of refused) answers.set(id, refusal)
      if (allOrNothing && [...answers.values()].some(({ kind }) => kind === 'refused')) throw new TakenBack(answers)
      await countChildren(tx, written)
      return answers
    })
  } catch (error) {
    if (error instanceof TakenBack) return error.answers
    throw error
  }
}

/** Inserts the tasks, wherever they are addressed to, each for itself; `written` are those that this call inserted. */
export async function insertEach(
  tx: PoolClient,
  node: string,
  tasks: NewTask[],
  addressing: Addressing | undefined,
): Promise<{ answers: Answers; written: NewTask[] }> {
  const { plain, addressed } = byAddress(tasks)
  if (addressed.length === 0) return insertRows(tx, node, plain)
  if (!addressing) throw new Error('These tasks are addressed to an exchange, and nothing says how to route them')
  const placed = await insertAddressed(tx, node, addressed, addressing)
  if (plain.length === 0) return placed
  const rows = await insertRows(tx, node, plain)
  return { answers: new Map([...rows.answers, ...placed.answers]), written: [...rows.written, ...placed.written] }
}

async function committed(pool: Pool, tasks: NewTask[], addressing: Addressing | undefined): Promise<Answers> {
  const { plain, addressed } = byAddress(tasks)
  const rows = await committedRows(pool, plain)
  if (addressed.length === 0 || !addressing) return rows
  return new Map([...rows, ...(await committedAddressed(pool, addressed, addressing))])
}

/** Locks the parents, newest first as everywhere, until the transaction ends; answers the tasks whose parent takes no children. */
async function lockParents(tx: PoolClient, tasks: NewTask[]): Promise<Answers> {
  const refused: Answers = new Map()
  const parentIds = [...new Set(tasks.flatMap(({ parentId }) => parentId ?? []))].sort()
  if (parentIds.length === 0) return refused
  const rows = await prepared<{ id: string; queue: string; status: Status; ending: boolean }>(
    tx,
    'lock-parents',
    'select id, queue, status, cancel_requested as ending from tasks where id = any($1::uuid[]) order by id desc for update',
    [parentIds],
  )
  const parents = new Map(rows.map((row) => [row.id, row]))
  for (const { id, parentId } of tasks) {
    if (parentId === null) continue
    const parent = parents.get(parentId)
    if (parent === undefined) {
      const detail = `There is no task "${parentId}" that could be the parent`
      refused.set(id, { kind: 'refused', code: 'unknown-parent', field: 'parentId', detail })
    } else if (exchangeOfLine(parent.queue) !== undefined) {
      const detail = `The parent "${parentId}" was fanned out by an exchange: its children are what its queues got`
      refused.set(id, { kind: 'refused', code: 'parent-final', field: 'parentId', detail })
    } else if (parent.ending || isFinal(parent.status)) {
      const state = parent.ending && !isFinal(parent.status) ? 'being cancelled' : parent.status
      const detail = `The parent "${parentId}" is ${state}: it takes no more children`
      refused.set(id, { kind: 'refused', code: 'parent-final', field: 'parentId', detail })
    }
  }
  return refused
}

async function countChildren(tx: PoolClient, written: NewTask[]): Promise<void> {
  const counts = new Map<string, number>()
  for (const { parentId } of written) {
    if (parentId === null) continue
    counts.set(parentId, (counts.get(parentId) ?? 0) + 1)
  }
  if (counts.size === 0) return
  await prepared(
    tx,
    'count-children',
    `update tasks p set children_total = p.children_total + n.count
     from unnest($1::uuid[], $2::int[]) as n(id, count) where p.id = n.id`,
    [[...counts.keys()], [...counts.values()]],
  )
}
