import { expect, test } from 'bun:test'
import type { Pool } from 'pg'
import { pino } from 'pino'
import { pause, realClock } from '../../src/runtime/clock.ts'
import { openDatabase } from '../../src/store/database/database.ts'
import { makeQueue } from '../e2e/installation.ts'
import { type NodeProcess, nodeFolder, startNode } from '../support/node-process.ts'
import { type PostgresServer, serverPrograms, startPostgresServer } from '../support/postgres-server.ts'
import { BROKERS, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { SEED, seeded } from './seed.ts'
import { sideBySide } from './side-by-side.ts'
import { createTraffic, type Traffic, trafficReply } from './traffic.ts'
import { judge, liveTasks, NOTHING_WRONG } from './verdict.ts'

const ADMIN_KEY = 'ls_outage_admin_key_for_this_test'
/** Longer than a rescuer needs until it may take others for dead: before that an outage proves nothing. */
const STEADY_MS = 17_000
const OUTAGE_MS = 20_000

interface Outage {
  /** Callers are refused; otherwise they wait. */
  refuses: boolean
  begin(server: PostgresServer): Promise<void> | void
  end(server: PostgresServer): Promise<void> | void
}
const OUTAGES = {
  'killed and started again': {
    refuses: true,
    begin: (server) => server.stopAtOnce(),
    end: (server) => server.start(),
  },
  'frozen and continued': {
    refuses: false,
    begin: (server) => server.freeze(),
    end: (server) => server.thaw(),
  },
} satisfies Record<string, Outage>

/** Which of them, and the kind of broker of the nodes: with RabbitMQ claims, confirms and dead letters meet it, too. */
interface Scenario {
  name: keyof typeof OUTAGES
  broker: (typeof BROKERS)[number]
}
const SCENARIOS = BROKERS.flatMap((broker) =>
  (Object.keys(OUTAGES) as (keyof typeof OUTAGES)[]).map((name): Scenario => ({ name, broker })),
)

test.skipIf(serverPrograms() === undefined)(
  'a Postgres that is gone for 20 s, killed or frozen, kills no node, doubles nothing, and all goes on by itself, on either broker',
  async () => {
    const ends = await sideBySide(SCENARIOS, survive)
    for (const { scenario, verdict, deadNodes, ranAgain, refusals } of ends) {
      expect({ scenario, verdict, deadNodes, ranAgain }).toEqual({
        scenario,
        verdict: NOTHING_WRONG,
        deadNodes: [],
        ranAgain: [],
      })
      if (OUTAGES[scenario.name].refuses) expect(refusals).toContain('database-unavailable')
      expect(refusals.filter((code) => code !== 'database-unavailable' && code !== 'unknown')).toEqual([])
    }
  },
  400_000,
)

async function survive(scenario: Scenario) {
  const outage: Outage = OUTAGES[scenario.name]
  await using vhost = scenario.broker === 'rabbitmq' ? await testVhost() : undefined
  await using folder = await nodeFolder()
  await using sink = await startSink()
  sink.reply = trafficReply(sink)
  const server = await startPostgresServer(folder)
  const start = (dir: string) =>
    startNode(folder, {
      env: {
        ...{ DATABASE_URL: server.url, LONGSHORE_ADMIN_KEY: ADMIN_KEY, DATA_DIR: `${folder.path}/${dir}` },
        ...{ WORKER_THREADS: '1', ...(vhost && { AMQP_URL: vhost.amqpUrl }) },
      },
    })
  const nodes = [await start('a'), await start('b')]
  await makeQueue(nodes[0] as NodeProcess, 'outage', { base: '200ms', maxAttempts: 10 })
  const flows = nodes.map((node, index) => ({
    node,
    traffic: createTraffic({
      sink,
      queue: 'outage',
      random: seeded(SEED + index),
      name: `node-${index}`,
      slowMs: 4_000,
    }),
  }))
  const over = new AbortController()
  const sending = Promise.all(flows.map(({ node, traffic }) => keepSending(node, traffic, over.signal)))

  await pause(realClock, STEADY_MS)
  await outage.begin(server)
  await pause(realClock, OUTAGE_MS)
  await outage.end(server)
  await pause(realClock, 1_000)
  // Short ones too, while much is being submitted.
  for (let blink = 0; blink < 3; blink++) {
    await outage.begin(server)
    await pause(realClock, 300)
    await outage.end(server)
    await pause(realClock, 700)
  }
  over.abort()
  await sending
  for (const { node, traffic } of flows) await traffic.finish(node)

  const { pool, close } = openDatabase({
    connection: { url: server.url },
    poolSize: 1,
    log: pino({ level: 'silent' }),
  })
  try {
    await until(async () => (await liveTasks(pool)) === 0, { timeoutMs: 120_000 }).catch(() => {})
    const verdict = await judge(
      pool,
      flows.flatMap(({ traffic }) => traffic.expected),
      sink,
    )
    if (vhost) await readsDeadLetters(vhost, pool)
    const dead = await pool.query<{ id: string }>('select id from nodes where dead_at is not null')
    const once = Map.groupBy(
      sink.requests.filter(({ path }) => !path.startsWith('/unsteady')),
      (request) => request.task,
    )
    const ranAgain = [...once].filter(([, requests]) => requests.length > 1).map(([task]) => task)
    const refusals = flows.flatMap(({ traffic }) => [...traffic.refusals.keys()])
    return { scenario, verdict, deadNodes: dead.rows.map((row) => row.id), ranAgain, refusals }
  } finally {
    await close()
    await Promise.all(nodes.map((node) => node.stop()))
  }
}

/** Resolves when a message that is put behind all dead letters is in the ledger, as those before it are then. */
async function readsDeadLetters(vhost: TestVhost, pool: Pool): Promise<void> {
  await vhost.publish('outage.dlq', 'the last')
  const isRead = async () => {
    const { rowCount } = await pool.query(`select from tasks where origin = 'message' and status = 'dead'`)
    return (rowCount ?? 0) > 0
  }
  await until(isRead, { what: 'the last dead letter to be read', timeoutMs: 60_000 })
}

async function keepSending(node: NodeProcess, traffic: Traffic, signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await traffic.send(node, 4, signal)
    await pause(realClock, 150)
  }
}
