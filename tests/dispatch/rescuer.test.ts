import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'bun:test'
import { createRescuer, type RescuerDeps } from '../../src/dispatch/rescuer.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import type { Service } from '../../src/runtime/service.ts'
import { createStoreLedger } from '../../src/store/ledger.ts'
import { joinNode, markSilentNodes, orphanedTasks } from '../../src/store/nodes.ts'
import { claimDueTasks } from '../../src/store/tasks/claim/claim.ts'
import { DEFAULT_RETRY_POLICY } from '../../src/task/retry-policy.ts'
import { silent, type TestLedger, testLedger, turns } from '../support/services.ts'
import { until } from '../support/until.ts'

/** The rescuers' node: it has been beating for long. */
const STEADY_NODE = '00000000-0000-7000-8000-0000000000aa'
let ledger: TestLedger
let running: Service[] = []
beforeAll(async () => {
  ledger = await testLedger()
  const { pool } = ledger.database
  await joinNode(pool, {
    ...{ id: STEADY_NODE, name: 'steady', version: '0', roles: [], broker: 'in-process' },
    state: { broker: 'in-process', consumers: [] },
  })
  await pool.query(`update nodes set steady_since = now() - interval '1 hour' where id = $1`, [STEADY_NODE])
})
beforeEach(() => ledger.database.pool.query('truncate tasks'))
afterEach(async () => {
  for (const service of running) await service.stop()
  running = []
})
afterAll(() => ledger.drop())

function rescuer(changes: Partial<RescuerDeps> = {}) {
  const { pool } = ledger.database
  const clock = new ManualClock()
  const woken: string[] = []
  const service = createRescuer({
    clock,
    log: silent,
    steadyMs: () => 15_000,
    markSilentNodes: (silentMs) => markSilentNodes(pool, STEADY_NODE, silentMs),
    orphanedTasks: (limit) => orphanedTasks(pool, limit),
    settle: createStoreLedger(pool, () => DEFAULT_RETRY_POLICY).settle,
    takeFromSilentOwners: async () => [],
    returnLostPublishes: async () => [],
    takeUnreported: async () => [],
    wake: (queue) => void woken.push(queue),
    ...changes,
  })
  running.push(service)
  return { clock, woken, service }
}

/** The rescuers' node has beaten just now, and without a gap for so long. */
const beatsFor = (time: string) =>
  ledger.database.pool.query('update nodes set beat_at = now(), steady_since = now() - $2::interval where id = $1', [
    STEADY_NODE,
    time,
  ])

/** A node that holds tasks and has been silent for so long. */
async function silentNode(tasks: number, silentFor: string): Promise<{ id: string; ids: string[] }> {
  const { pool } = ledger.database
  const node = await ledger.node()
  await node.stop()
  const ids = await ledger.submit(...Array.from({ length: tasks }, () => ({})))
  const claimed = await claimDueTasks(pool, { claimId: node.id, node: node.id, queue: 'work', limit: tasks })
  expect(claimed).toHaveLength(tasks)
  await pool.query(`update nodes set beat_at = now() - $2::interval where id = $1`, [node.id, silentFor])
  return { id: node.id, ids }
}

const standings = async (ids: string[]) => {
  const rows = await Promise.all(ids.map((id) => ledger.row(id)))
  return rows.map(({ status, attempt, failures }) => ({ status, attempt, failures }))
}

test('a rescuer does nothing before its own beats have been without a gap for 15 s', async () => {
  let calls = 0
  let steadyMs = 14_999
  const { clock, service } = rescuer({
    steadyMs: () => steadyMs,
    async markSilentNodes() {
      calls++
      return []
    },
    orphanedTasks: async () => [],
  })
  await service.start()
  await turns()
  clock.advance(60_000)
  await turns()
  expect(calls).toBe(0)
  steadyMs = 15_000
  clock.advance(5_000)
  await until(() => calls === 1, { what: 'the rescue' })
})

test('work of a node that was silent for 15 s is sent again, once, without a failure, with several rescuers at once', async () => {
  const dead = await silentNode(50, '16 s')
  const alive = await silentNode(1, '5 s')
  await beatsFor('20 s')
  const rescuers = [rescuer(), rescuer(), rescuer()]
  await Promise.all(rescuers.map(({ service }) => service.start()))
  await until(async () => (await ledger.count('running')) === 1, { what: 'the rescue' })
  expect(await standings(dead.ids)).toEqual(dead.ids.map(() => ({ status: 'pending', attempt: 1, failures: 0 })))
  expect(await standings(alive.ids)).toEqual([{ status: 'running', attempt: 1, failures: 0 }])
  await until(() => rescuers.some(({ woken }) => woken.includes('work')), { what: 'the wake' })
  const { rows } = await ledger.database.pool.query(
    'select jsonb_array_length(attempts) as n from tasks where id = any($1)',
    [dead.ids],
  )
  expect(rows.every((row) => row.n === 1)).toBe(true)
})

test('a rescuer that a frozen database held back marks nobody, because its own node was not steady either', async () => {
  const held = await silentNode(3, '20 s')
  await beatsFor('5 s')
  const looked = Promise.withResolvers<void>()
  const { service } = rescuer({
    async takeFromSilentOwners() {
      looked.resolve()
      return []
    },
  })
  await service.start()
  await looked.promise
  expect((await standings(held.ids)).map(({ status }) => status)).toEqual(['running', 'running', 'running'])
})

test('a rescuer goes on at the next round when the database was away', async () => {
  let calls = 0
  const { clock, service } = rescuer({
    async markSilentNodes() {
      calls++
      throw new Error('connect ECONNREFUSED')
    },
  })
  await service.start()
  await turns()
  clock.advance(4_999)
  await turns()
  expect(calls).toBe(1)
  clock.advance(1)
  await until(() => calls === 2, { what: 'the second round' })
})

test('a rescuer that can change nothing looks again at the next round, not at once', async () => {
  let looks = 0
  const orphan = { id: 'x', queue: 'work', attempt: 1, parentId: null, node: 'gone', started: false }
  const { service } = rescuer({
    markSilentNodes: async () => [],
    async orphanedTasks() {
      looks++
      return [{ ...orphan, standing: { failures: 0, maxAttempts: 1, lostStarts: 0 } }]
    },
    settle: async (_, settlements) => settlements.map(({ id }) => ({ id, late: true })),
  })
  await service.start()
  await turns(50)
  expect(looks).toBe(1)
})
