import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { readAccounting } from '../../../src/store/accounting.ts'
import { cancelTasks } from '../../../src/store/tasks/cancel.ts'
import { replayTasks } from '../../../src/store/tasks/dead-letters/replay.ts'
import { reportForeign } from '../../../src/store/tasks/foreign-report.ts'
import { insertTasks } from '../../../src/store/tasks/insert/insert.ts'
import { removeTasks } from '../../../src/store/tasks/remove.ts'
import { runNow } from '../../../src/store/tasks/run-now.ts'
import { settleTasks } from '../../../src/store/tasks/settle.ts'
import type { Outcome } from '../../../src/task/outcome.ts'
import type { ClaimedTask } from '../../../src/task/task.ts'
import { ENGINES } from '../../support/database.ts'
import {
  atOnce,
  type ChildCounts,
  DEAD,
  FAILED,
  LOST,
  miscounted,
  newTask,
  RETURNED,
  SUCCEEDED,
  settlementOf,
  type TaskLedger,
  taskLedger,
} from '../../support/tasks.ts'

const OUTCOMES: Outcome[] = [
  SUCCEEDED,
  SUCCEEDED,
  SUCCEEDED,
  FAILED,
  DEAD,
  RETURNED,
  LOST,
  { kind: 'cancelled' },
  { kind: 'snoozed', delayMs: 0 },
]

/** mulberry32: the same walk for the same seed. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

describe.each(ENGINES)('random operations on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  /** Every operation on tasks of `known`, drawn by `random`; answers are not needed, invariants are. */
  function walker(random: () => number, known: string[]) {
    const gone = new Map<string, ChildCounts>()
    const held: ClaimedTask[] = []
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T
    const some = () => Array.from({ length: 1 + Math.floor(random() * 6) }, () => pick(known))
    const accepted = { count: 0 }

    async function insert(): Promise<void> {
      const parentId = known.length > 0 && random() < 0.7 ? pick(known) : null
      const tasks = Array.from({ length: 1 + Math.floor(random() * 3) }, () => newTask({ parentId, maxAttempts: 2 }))
      for (const [i, answer] of (await insertTasks(ledger.pool, ledger.node, tasks)).entries()) {
        if (answer.kind !== 'created') continue
        accepted.count += 1
        known.push(tasks[i]?.id as string)
      }
    }

    async function claim(): Promise<void> {
      held.push(...(await ledger.claim(1 + Math.floor(random() * 8))))
    }

    async function settle(): Promise<void> {
      const mine = held.splice(0, 1 + Math.floor(random() * 8))
      await settleTasks(
        ledger.pool,
        ledger.node,
        mine.map((task) => settlementOf(task, pick(OUTCOMES))),
        atOnce,
      )
      // Once more, with another outcome: too late, or a success of what waits again.
      if (random() < 0.2)
        await settleTasks(
          ledger.pool,
          ledger.node,
          mine.map((task) => settlementOf(task, SUCCEEDED)),
          atOnce,
        )
    }

    async function remove(): Promise<void> {
      const ids = [...new Set(some())]
      const before = await ledger.pool.query<{ id: string; status: string; parent_id: string | null }>(
        'select id, status, parent_id from tasks where id = any($1::uuid[])',
        [ids],
      )
      for (const { id, outcome } of await removeTasks(ledger.pool, ledger.node, ids)) {
        const row = before.rows.find((one) => one.id === id)
        if (outcome !== 'deleted' || !row?.parent_id) continue
        const counts = gone.get(row.parent_id) ?? { total: 0, succeeded: 0, dead: 0 }
        counts.total += 1
        counts[row.status === 'succeeded' ? 'succeeded' : 'dead'] += 1
        gone.set(row.parent_id, counts)
      }
    }

    async function report(): Promise<void> {
      const status = pick(['running', 'pending', 'retrying', 'succeeded', 'dead', 'cancelled'] as const)
      const attempt = (
        await ledger.pool.query<{ attempt: number }>('select attempt from tasks where id = $1', [pick(known)])
      ).rows[0]?.attempt
      await reportForeign(ledger.pool, pick(known), { status, attempt: attempt && attempt + pick([0, 1]) }, 'k', atOnce)
    }

    const operations = [
      [0.2, insert],
      [0.45, claim],
      [0.7, settle],
      [0.78, async () => void (await cancelTasks(ledger.pool, some()))],
      [0.88, async () => void (await replayTasks(ledger.pool, some()))],
      [0.91, async () => void (await runNow(ledger.pool, some()))],
      [0.96, report],
      [1, remove],
    ] as const
    async function step(): Promise<void> {
      if (known.length === 0) return insert()
      const draw = random()
      await operations.find(([below]) => draw < below)?.[1]()
    }
    return { step, gone, accepted }
  }

  /** What must hold of every row, whatever happened. */
  async function brokenRows(): Promise<unknown[]> {
    const { rows } = await ledger.pool.query(
      `select id, status, sealed, node, foreign_owner, attempt, failures from tasks
       where (finished_at is not null) <> (status in ('succeeded', 'dead', 'cancelled'))
         or failures > max_attempts or failures > attempt
         or (status = 'running' and not sealed and (node is null) = (foreign_owner is null))
         or (status = 'running' and sealed and (node is not null or foreign_owner is not null))
         or (status <> 'running' and (foreign_owner is not null or report_by is not null))
         or (sealed and status not in ('running', 'succeeded', 'dead', 'cancelled'))
         or (sealed and (status = 'running') <> (children_succeeded + children_dead < children_total))
         or (status = 'succeeded' and (children_dead > 0 or children_succeeded < children_total))
         or children_succeeded < 0 or children_dead < 0 or children_succeeded + children_dead > children_total`,
    )
    return rows
  }

  test.each([1, 2, 3, 4])(
    '26: accepted = rows + pruned in one snapshot, and counts of children are their recount, at every step of walk %i',
    async (seed) => {
      const { step, gone, accepted } = walker(seeded(seed), [])
      for (let i = 0; i < 120; i++) {
        await step()
        const accounting = await readAccounting(ledger.test.database.db)
        expect([accounting.unaccounted, accounting.accepted]).toEqual([0, accepted.count])
        expect(await miscounted(ledger.pool, gone)).toEqual([])
        expect(await brokenRows()).toEqual([])
      }
    },
    90_000,
  )

  test('23: settles, cancels, replays, reports and deletes of the same families on many connections all finish', async () => {
    const known: string[] = []
    const walkers = Array.from({ length: 8 }, (_, lane) => walker(seeded(100 + lane), known))
    const end = performance.now() + 40_000
    let steps = 0
    await Promise.all(
      walkers.map(async ({ step }) => {
        while (steps < 3_000 && performance.now() < end) {
          await step()
          steps++
        }
      }),
    )
    // A matter of seconds where nobody waits for a deadlock to be found, which takes Postgres a second each.
    expect(steps).toBeGreaterThanOrEqual(1_000)
    const accepted = walkers.reduce((sum, one) => sum + one.accepted.count, 0)
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ unaccounted: 0, accepted })
    expect(await brokenRows()).toEqual([])
    // Deleted children are not followed across lanes here; no parent may count fewer than it has.
    const { rows } = await ledger.pool.query(
      `select p.id from tasks p left join tasks c on c.parent_id = p.id group by p.id
       having count(*) filter (where c.status = 'succeeded') > p.children_succeeded
         or count(*) filter (where c.status in ('dead', 'cancelled')) > p.children_dead
         or count(c.id) > p.children_total
         or count(c.id) filter (where c.status not in ('succeeded', 'dead', 'cancelled'))
           <> p.children_total - p.children_succeeded - p.children_dead`,
    )
    expect(rows).toEqual([])
  }, 60_000)
})
