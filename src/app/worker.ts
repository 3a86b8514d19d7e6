import { hostname } from 'node:os'
import { v7 as uuidv7 } from 'uuid'
import type { Config } from '../config.ts'
import { createInstruments } from '../execution/instruments.ts'
import { claimingIntake } from '../execution/intake.ts'
import { CLAIM_BYTES_A_CALL, CLAIMS_A_CALL, createRemoteLedger } from '../execution/remote/ledger.ts'
import { isRefusedByLedger, LedgerUnavailable } from '../execution/remote/ledger-connection.ts'
import { followNotices } from '../execution/remote/notices.ts'
import { realClock } from '../runtime/clock.ts'
import { type Logger, tellOnEveryLine } from '../runtime/log.ts'
import { serve } from '../runtime/serve.ts'
import { createMetrics } from '../runtime/telemetry/metrics.ts'
import { createTracing, noTracing } from '../runtime/telemetry/tracing.ts'
import { VERSION } from '../runtime/version.ts'
import type { NodeState } from '../task/ledger.ts'
import type { ConsumerOrder } from '../task/topology/topology.ts'
import { createHands } from './hands.ts'
import { openBroker } from './open-broker.ts'
import { runStops, type Stops } from './stops.ts'
import { tablesOf } from './tables.ts'
import { workerHealth } from './worker-health.ts'

/** Where a worker finds its server. */
export interface WorkerPlace {
  url: string
  /** With the scope `work`. */
  key: string
}

export interface RemoteWorker {
  /** Where its health is told; undefined when nowhere. */
  readonly url: string | undefined
  /** Takes nothing new, ends the work in hand until the configured deadline, gives the rest back, leaves. */
  stop(): Promise<void>
}

/** What ends with the process that it runs in. */
const HEALTH_WITHIN_MS = 1_000

/**
 * Starts a process that works on tasks and has no database: deliveries come from RabbitMQ, the ledger is the server's API.
 * Waits for a server that is not there yet; rejects, with nothing left running, when `signal` aborts first.
 */
export async function startRemoteWorker(
  config: Config,
  place: WorkerPlace,
  log: Logger,
  threadUrl: URL,
  signal?: AbortSignal,
): Promise<RemoteWorker> {
  const stops: Stops = []
  const stop = () => runStops(stops, log)
  try {
    return { url: await start(config, place, log, threadUrl, stops, signal), stop }
  } catch (error) {
    await stop()
    throw error
  }
}

async function start(
  config: Config,
  place: WorkerPlace,
  log: Logger,
  threadUrl: URL,
  stops: Stops,
  signal: AbortSignal | undefined,
): Promise<string | undefined> {
  const clock = realClock
  const ledger = createRemoteLedger({
    ...place,
    clock,
    log,
    onTopology({ queues, consumers }) {
      workers.reconcile({
        queues,
        consumers: consumers.filter((consumer) => worksOn(config, consumer)),
      })
      // The ledger hears at once what this worker does now.
      heart.beatSoon()
    },
  })
  const { broker, name: brokerName, service: brokerService } = await openBroker(config, log, clock)
  const metrics = createMetrics()
  const tracing = config.tracing
    ? createTracing({ settings: config.tracing, version: VERSION, clock, log, onLost: metrics.spansLost })
    : noTracing
  stops.push(async () => {
    metrics.stop()
    await tracing.stop()
  })

  /** Asks until the server is there; the connection sees to the pauses between. */
  async function join(id: string, state: NodeState): Promise<void> {
    for (;;) {
      try {
        return await ledger.join({
          id,
          name: `${hostname()}:${process.pid}`,
          version: VERSION,
          broker: brokerName,
          state,
        })
      } catch (error) {
        if (!(error instanceof LedgerUnavailable) || error.code === 'other-broker' || ledger.closed()) throw error
      }
    }
  }

  const { heart, workers, executor, end } = createHands({
    config,
    log,
    clock,
    threadUrl,
    ledger,
    broker,
    intake: claimingIntake({
      broker,
      ledger,
      // More would be several calls, one after another, and what the first one claims must be started soon.
      maxClaim: CLAIMS_A_CALL,
      maxClaimBytes: CLAIM_BYTES_A_CALL,
      clock,
      log,
      node: () => heart.node(),
      newId: uuidv7,
      mayStart: () => heart.mayStart(),
      isBadRow: isRefusedByLedger,
    }),
    tables: tablesOf(config),
    publish: async (message) => (await broker.publish([message]))[0] ?? 'unknown',
    // The server counts and tells what ends; here only traces are passed on.
    instruments: createInstruments({ clock, metrics, tracing, touched() {}, isHeard: () => false }),
    isBadRow: isRefusedByLedger,
    join,
    leave: (id) => ledger.leave(id),
    works: true,
    onSettled() {},
    onOthers() {},
  })

  tellOnEveryLine(log, () => ({ node: heart.node() }))
  const health = config.portIsGiven
    ? serve({
        fetch: workerHealth({
          mayStart: () => heart.mayStart(),
          away: () => ledger.away(),
          link: () => broker.state(),
        }),
        host: config.host,
        port: config.port,
        log,
      })
    : undefined
  if (health) stops.push(() => health.stop(HEALTH_WITHIN_MS))
  stops.push(async () => ledger.close())
  const giveUp = () => ledger.close()
  signal?.addEventListener('abort', giveUp)
  if (signal?.aborted) giveUp()
  await heart.start()
  signal?.removeEventListener('abort', giveUp)
  stops.push(() => heart.stop())
  stops.push(async () => ledger.close())
  stops.push(() => executor.close())
  if (brokerService) {
    await brokerService.start()
    stops.push(() => brokerService.stop())
  }
  const listening = followNotices({ clock, next: ledger.nextNotice, onNotice: () => heart.beatSoon() })
  stops.push(() => listening.stop())
  workers.resume()
  heart.beatSoon()
  stops.push(end)
  return health?.url
}

/** Consumers of the queues that it is given, by default of all; nodes that poll import files, and write tables where this process has no database for them. */
function worksOn({ workerQueues, tableDatabaseUrl }: Config, { queue, target }: ConsumerOrder): boolean {
  if (target.type === 'import') return false
  if (target.type === 'table' && tableDatabaseUrl === undefined) return false
  return workerQueues === undefined || workerQueues.includes(queue)
}
