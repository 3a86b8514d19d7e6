import { describe, expect, test } from 'bun:test'
import { type Installation, install, makeQueue, reached, submit } from '../e2e/installation.ts'
import { startApiGate } from '../support/api-gate.ts'
import { ENGINES } from '../support/database.ts'
import { freePort } from '../support/free-port.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { type Sink, startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { startWorkerProcess, type WorkerOptions, workKey } from '../support/worker-process.ts'
import { untilAtWork } from './in-hand.ts'
import { SEED, seeded } from './seed.ts'
import { createTraffic, type Traffic, trafficReply } from './traffic.ts'
import { judge, liveTasks, NOTHING_WRONG } from './verdict.ts'

const ADMIN_KEY = 'ls_remote_admin_key_for_this_test'
const TIMEOUT_MS = 300_000

interface Home extends AsyncDisposable {
  installation: Installation
  vhost: TestVhost
  sink: Sink
  /** The server, which works on nothing itself; `startServer` again after it was killed. */
  server: NodeProcess
  startServer(): Promise<NodeProcess>
  startWorker(options?: Partial<WorkerOptions>): Promise<NodeProcess>
}

async function home(): Promise<Home> {
  // Ends everything when a part of it does not start.
  await using stack = new AsyncDisposableStack()
  const vhost = stack.use(await testVhost())
  const installation = stack.use(await install('server'))
  const sink = stack.use(await startSink())
  const port = await freePort()
  const startServer = () =>
    installation.start({
      AMQP_URL: vhost.amqpUrl,
      PORT: String(port),
      LONGSHORE_ADMIN_KEY: ADMIN_KEY,
      LONGSHORE_ROLES: 'api,dispatcher,scheduler',
    })
  const server = await startServer()
  const key = await workKey(server)
  const startWorker = (options: Partial<WorkerOptions> = {}) =>
    startWorkerProcess(installation, { server: `http://127.0.0.1:${port}`, key, amqpUrl: vhost.amqpUrl, ...options })
  const everything = stack.move()
  return {
    ...{ installation, vhost, sink, server, startServer, startWorker },
    [Symbol.asyncDispose]: () => everything.disposeAsync(),
  }
}

/** What the broker holds of a queue: waiting and not yet acked. */
async function inBroker(vhost: TestVhost, queue: string): Promise<number | undefined> {
  const found = await vhost.manage<{ messages?: number }>('GET', `/queues/${vhost.name}/${queue}`)
  return found.messages
}

const nodeIds = (worker: NodeProcess) => worker.logged('node-joined').map((line) => String(line.node))

async function sendFor(ms: number, node: NodeProcess, traffic: Traffic): Promise<void> {
  const over = AbortSignal.timeout(ms)
  while (!over.aborted) {
    await traffic.send(node, 4, over)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
}

// Each is mostly waiting: for silence to be noticed, for a server to be back.
const onBoth = test.skipIf(!ENGINES.includes('server'))

describe.if(HAS_RABBITMQ)('a worker without a database', () => {
  onBoth.concurrent(
    'that is killed between its side effect and its report: the task is run again, and has one outcome',
    async () => {
      await using at = await home()
      await using gate = await startApiGate(await at.server.listening)
      await makeQueue(at.server, 'effects')
      const doomed = await at.startWorker({ server: gate.url })
      const reporting = gate.hold('/outcomes', false)
      const id = await submit(at.server, {
        queue: 'effects',
        payload: 1,
        target: { type: 'http', url: at.sink.url('/effect') },
      })
      await reporting
      await doomed.kill()
      const other = await at.startWorker()
      const task = await reached(at.server, id, ['succeeded'], 120_000)
      expect(task).toMatchObject({ status: 'succeeded', attempt: 2, failures: 0 })
      expect(task.attempts.map(({ number, outcome }) => [number, outcome])).toEqual([
        [1, 'lost'],
        [2, 'succeeded'],
      ])
      // The target can tell that it is the same piece of work.
      expect(at.sink.requests.map((request) => [request.task, request.attempt])).toEqual([
        [id, 1],
        [id, 2],
      ])
      await other.stop()
      await at.server.stop()
    },
    TIMEOUT_MS,
  )

  onBoth.concurrent(
    'that is killed between the commit of its report and the ack: the message comes back, and nothing is run again',
    async () => {
      await using at = await home()
      await using gate = await startApiGate(await at.server.listening)
      await makeQueue(at.server, 'acks')
      const doomed = await at.startWorker({ server: gate.url })
      const reported = gate.hold('/outcomes', true)
      const id = await submit(at.server, {
        queue: 'acks',
        payload: 1,
        target: { type: 'http', url: at.sink.url('/effect') },
      })
      await reported
      expect(await reached(at.server, id)).toMatchObject({ status: 'succeeded', attempt: 1 })
      await doomed.kill()
      const other = await at.startWorker()
      await until(async () => (await inBroker(at.vhost, 'acks')) === 0, {
        timeoutMs: 120_000,
        what: 'the redelivery to be acked',
      })
      const task = await reached(at.server, id)
      expect(task.attempts.map(({ outcome }) => outcome)).toEqual(['succeeded'])
      expect(at.sink.requests).toHaveLength(1)
      await other.stop()
      await at.server.stop()
    },
    TIMEOUT_MS,
  )

  onBoth.concurrent(
    `keeps its deliveries and outcomes while the server is killed and started again (seed ${SEED})`,
    async () => {
      await using at = await home()
      at.sink.reply = trafficReply(at.sink)
      await makeQueue(at.server, 'kept', { base: '200ms', maxAttempts: 10, concurrency: 20 })
      const workers = [await at.startWorker(), await at.startWorker()]
      const traffic = createTraffic({ sink: at.sink, queue: 'kept', random: seeded(SEED), slowMs: 2_000 })
      const told = (event: string) => workers.map((worker) => worker.logged(event).length)
      const untilTold = (event: string, before: number[]) =>
        until(() => told(event).every((times, n) => times > (before[n] ?? 0)), {
          what: `each worker to tell ${event}`,
          timeoutMs: 30_000,
        })
      let server = at.server
      for (let kills = 0; kills < 3; kills++) {
        await sendFor(3_000, server, traffic)
        const away = told('ledger-away')
        await server.kill()
        await untilTold('ledger-away', away)
        // What was claimed before goes on: the server's absence ends no work.
        await until(() => at.sink.requests.filter(({ endedAt }) => endedAt === undefined).length === 0, {
          what: 'the work in hand to end',
          timeoutMs: 30_000,
        })
        const back = told('ledger-back')
        server = await at.startServer()
        // Their pauses may be longer than the server's next life.
        await untilTold('ledger-back', back)
      }
      await traffic.finish(server)
      const { pool } = at.installation.database
      await until(async () => (await liveTasks(pool)) === 0, { timeoutMs: 120_000 }).catch(() => {})
      expect(await judge(pool, traffic.expected, at.sink)).toEqual(NOTHING_WRONG)
      // Each outage was short: nobody was taken for dead, and nothing was run twice.
      const { rows } = await pool.query(
        `select a.value ->> 'outcome' as outcome, count(*)::int as n
         from tasks t, jsonb_array_elements(t.attempts) a group by 1`,
      )
      expect(rows.filter(({ outcome }) => outcome === 'lost')).toEqual([])
      for (const worker of workers) {
        expect(worker.logged('node-declared-dead')).toEqual([])
        expect(worker.logged('ledger-back').length).toBeGreaterThanOrEqual(3)
        // No hot loop: some tries a second, whatever waited.
        const awayMs = worker.logged('ledger-back').reduce((sum, line) => sum + Number(line.awayMs), 0)
        const tries = ['settle-failed', 'claim-failed', 'beat-failed', 'report-failed']
          .map((event) => worker.logged(event).length)
          .reduce((sum, count) => sum + count, 0)
        expect(tries).toBeLessThan(15 + awayMs / 50)
      }
      await Promise.all(workers.map((worker) => worker.stop()))
      await server.stop()
    },
    TIMEOUT_MS,
  )

  onBoth.concurrent(
    `that is stopped for 20 s is declared dead, and comes back under a new id (seed ${SEED})`,
    async () => {
      await using at = await home()
      at.sink.reply = trafficReply(at.sink)
      await makeQueue(at.server, 'frozen', { base: '200ms', maxAttempts: 10, concurrency: 20 })
      const [frozen, other] = [await at.startWorker(), await at.startWorker()]
      const traffic = createTraffic({ sink: at.sink, queue: 'frozen', random: seeded(SEED + 1), slowMs: 2_000 })
      await sendFor(3_000, at.server, traffic)
      const { pool } = at.installation.database
      await untilAtWork(nodeIds(frozen)[0], 'frozen', at.server, pool)
      frozen.signal('SIGSTOP')
      await sendFor(20_000, at.server, traffic)
      // When a rescuer looks is a matter of its beats: it may be a while after the 15 s of silence.
      await until(() => at.server.logged('node-dead').length > 0, { what: 'its death to be told', timeoutMs: 60_000 })
      expect(at.server.logged('node-dead').map((line) => line.node)).toEqual(nodeIds(frozen))
      frozen.signal('SIGCONT')
      await until(() => nodeIds(frozen).length === 2, { what: 'the stopped worker to come back', timeoutMs: 40_000 })
      const [before, after] = nodeIds(frozen)
      expect(after).not.toBe(before)
      expect(frozen.logged('node-declared-dead').map((line) => line.node)).toEqual([before])
      await sendFor(3_000, at.server, traffic)
      await traffic.finish(at.server)
      await until(async () => (await liveTasks(pool)) === 0, { timeoutMs: 120_000 }).catch(() => {})
      expect(await judge(pool, traffic.expected, at.sink)).toEqual(NOTHING_WRONG)
      const { rows } = await pool.query<{ outcome: string; node: string }>(
        `select distinct a.value ->> 'outcome' as outcome, a.value ->> 'node' as node
         from tasks t, jsonb_array_elements(t.attempts) a`,
      )
      // It takes work again, and ends it under its new id only.
      expect(rows).toContainEqual({ outcome: 'lost', node: before as string })
      expect(rows).toContainEqual({ outcome: 'succeeded', node: after as string })
      await Promise.all([frozen.stop(), other.stop()])
      await at.server.stop()
    },
    TIMEOUT_MS,
  )
})
