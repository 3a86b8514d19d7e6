import { expect, test } from 'bun:test'
import { type Installation, install, makeQueue } from '../e2e/installation.ts'
import { ENGINES } from '../support/database.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { untilAtWork } from './in-hand.ts'
import { SEED, seeded } from './seed.ts'
import { createTraffic, type Traffic, trafficReply } from './traffic.ts'
import { judge, liveTasks, NOTHING_WRONG } from './verdict.ts'

const ADMIN_KEY = 'ls_two_nodes_admin_key_for_this_test'
const PAUSE_MS = 30_000

const onServer = test.skipIf(!ENGINES.includes('server'))

// Side by side: each is mostly waiting for 15 s of silence.
onServer.concurrent(
  `of two nodes on one Postgres one is killed: the other one finishes everything (seed ${SEED})`,
  async () => {
    await using two = await twoNodes()
    const { doomed, other, flows, database } = two
    await sendFor(3_000, flows)
    await untilAtWork(nodeIds(doomed)[0], 'pair', other, database.pool)
    await doomed.kill()
    await sendFor(1_000, [{ node: other, traffic: flows[1].traffic }])
    const [died] = await until(() => [other.logged('node-dead')].find((lines) => lines.length > 0), {
      timeoutMs: 80_000,
      what: 'the other node to say that the killed one is dead',
    })
    expect(died?.node).toBe(nodeIds(doomed)[0])

    // What the killed node had not answered its client sends to the other one; each client ends what it began.
    for (const { traffic } of flows) await traffic.finish(other)
    expect(await two.verdict()).toEqual(NOTHING_WRONG)
    expect(other.logged('tasks-rescued').reduce((sum, line) => sum + Number(line.tasks), 0)).toBeGreaterThan(0)
    await other.stop()
  },
  300_000,
)

onServer.concurrent(
  `of two nodes on one Postgres one is stopped for 30 s: its work moves, and it comes back under a new id (seed ${SEED})`,
  async () => {
    await using two = await twoNodes()
    const { doomed, other, flows, sink } = two
    await sendFor(3_000, flows)
    await untilAtWork(nodeIds(doomed)[0], 'pair', other, two.database.pool)
    doomed.signal('SIGSTOP')
    await sendFor(PAUSE_MS, [{ node: other, traffic: flows[1].traffic }], 500)
    // When a rescuer looks is a matter of its beats: it may be a while after the 15 s of silence.
    await until(() => other.logged('tasks-rescued').length > 0, { what: 'the rescue', timeoutMs: 60_000 })
    expect(other.logged('node-dead').map((line) => line.node)).toEqual(nodeIds(doomed))
    const rescued = other.logged('tasks-rescued').reduce((sum, line) => sum + Number(line.tasks), 0)
    expect(rescued).toBeGreaterThan(0)

    doomed.signal('SIGCONT')
    await until(() => nodeIds(doomed).length === 2, { what: 'the stopped node to come back', timeoutMs: 40_000 })
    const [before, after] = nodeIds(doomed)
    expect(after).not.toBe(before)
    expect(doomed.logged('node-declared-dead').map((line) => line.node)).toEqual([before])
    // It takes work again, and ends it under its new id only.
    await sendFor(3_000, flows)
    for (const { node, traffic } of flows) await traffic.finish(node)
    expect(await two.verdict()).toEqual(NOTHING_WRONG)
    const { rows } = await two.database.pool.query<{ outcome: string; node: string; n: number }>(
      `select a.value ->> 'outcome' as outcome, a.value ->> 'node' as node, count(*)::int as n
       from tasks t, jsonb_array_elements(t.attempts) a group by 1, 2`,
    )
    const count = (outcome: string, node: string | undefined) =>
      rows.find((row) => row.outcome === outcome && row.node === node)?.n ?? 0
    expect(count('lost', before)).toBe(rescued)
    expect(count('succeeded', after)).toBeGreaterThan(0)
    // Every outcome that was recorded belongs to an attempt that ran, and each task has one success at most.
    const { rows: twice } = await two.database.pool.query(
      `select t.id from tasks t, jsonb_array_elements(t.attempts) a where a.value ->> 'outcome' = 'succeeded'
       group by t.id having count(*) > 1`,
    )
    expect(twice).toEqual([])
    expect(sink.requests.length).toBeGreaterThan(100)
    await Promise.all([doomed.stop(), other.stop()])
  },
  300_000,
)

interface Flow {
  node: NodeProcess
  traffic: Traffic
}

async function twoNodes() {
  // Ends everything when a part of it does not start.
  await using stack = new AsyncDisposableStack()
  const home: Installation = stack.use(await install('server'))
  const sink = stack.use(await startSink())
  sink.reply = trafficReply(sink)
  const start = (dir: string) =>
    home.start({ DATA_DIR: `${home.path}/${dir}`, LONGSHORE_ADMIN_KEY: ADMIN_KEY, WORKER_THREADS: '1' })
  const [doomed, other] = [await start('doomed'), await start('other')]
  await makeQueue(other, 'pair', { base: '200ms', maxAttempts: 10, concurrency: 20 })
  const flow = (node: NodeProcess, index: number): Flow => ({
    node,
    traffic: createTraffic({
      ...{ sink, queue: 'pair', random: seeded(SEED + index), name: `node-${index}`, slowMs: 2_000 },
    }),
  })
  const flows: [Flow, Flow] = [flow(doomed, 0), flow(other, 1)]
  const everything = stack.move()
  return {
    ...{ doomed, other, flows, sink, database: home.database },
    async verdict() {
      const { pool } = home.database
      await until(async () => (await liveTasks(pool)) === 0, { timeoutMs: 90_000 }).catch(() => {})
      return judge(
        pool,
        flows.flatMap(({ traffic }) => traffic.expected),
        sink,
      )
    },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  }
}

/** The ids that the node has had, by its log. */
const nodeIds = (node: NodeProcess) => node.logged('node-joined').map((line) => String(line.node))

/** Sends jobs on all flows for so long. */
async function sendFor(ms: number, flows: Flow[], everyMs = 100): Promise<void> {
  const over = AbortSignal.timeout(ms)
  await Promise.all(
    flows.map(async ({ node, traffic }) => {
      while (!over.aborted) {
        await traffic.send(node, 4, over)
        await new Promise((resolve) => setTimeout(resolve, everyMs))
      }
    }),
  )
}
