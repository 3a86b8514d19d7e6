import { join } from 'node:path'
import { v7 as uuidv7 } from 'uuid'
import type { Broker, Message, PublishEnd } from '../broker/broker.ts'
import type { Config } from '../config.ts'
import { createAnswers } from '../execution/answers.ts'
import { loggedDeliveries } from '../execution/delivery-log.ts'
import { createHeart, type Heart } from '../execution/heart.ts'
import type { Instruments } from '../execution/instruments.ts'
import type { Intake } from '../execution/intake.ts'
import { createReporter } from '../execution/reporter.ts'
import { createSettler, type Settler } from '../execution/settler.ts'
import { createThreadPool, type ThreadPoolStats } from '../execution/threads/pool.ts'
import { startWorker, type Worker } from '../execution/worker.ts'
import { type Clock, endsWithin } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { TableSettings } from '../task/attempt/thread-messages.ts'
import type { Executor } from '../task/executor.ts'
import type { Ledger, NodeState, Settled, Settlement } from '../task/ledger.ts'
import type { ImportLedger } from '../task/source/import.ts'
import type { Destination } from '../task/topology/topology.ts'
import { createWorkers, type Workers } from '../topology/workers.ts'

export interface HandsDeps {
  config: Pick<Config, 'workerThreads' | 'handlersDir' | 'egress' | 'dataDir' | 'shutdownTimeoutMs'>
  log: Logger
  clock: Clock
  threadUrl: URL
  /** The store, or HTTP for a process without a database. */
  ledger: Ledger
  broker: Broker
  intake: Intake
  instruments: Pick<Instruments, 'executor'>
  /** Where table targets write; null: nowhere. */
  tables: TableSettings | null
  /** Sends a message that is no task of ours; never rejects. */
  publish(message: Message): Promise<PublishEnd>
  /** Where imports are written down; a process without a database has none. */
  imports?: ImportLedger | undefined
  /** Rejections of the ledger that are about one row. */
  isBadRow(error: unknown): boolean
  /** Enters this process into the ledger under a new id. */
  join(id: string, state: NodeState): Promise<void>
  leave(id: string): Promise<void>
  /** Every publish of this process up to this number is confirmed. */
  confirmed?: (() => number) | undefined
  /** Where the broker does not let this process publish tasks; absent where it publishes none. */
  refused?: (() => Destination[]) | undefined
  /** False: it beats, and takes no tasks. */
  works: boolean
  onSettled(settlement: Settlement, settled: Settled): void
  /** How many other nodes live, after each beat. */
  onOthers(count: number): void
}

/** The part of a node that works on tasks; it needs no database, only a ledger and a broker. */
export interface Hands {
  heart: Heart
  workers: Workers<Worker>
  executor: Executor
  settler: Settler
  /** Ends these tasks, where they are in hand. */
  cancel(tasks: string[]): void
  threads(): ThreadPoolStats
  /** Ends the work in hand until the configured deadline; what then still runs is ended with its thread and given back. */
  end(): Promise<void>
}

/** RabbitMQ closes the channel of a consumer that holds a delivery for half an hour (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout). */
const LONGEST_DELIVERY_MS = 25 * 60_000

/** Beats are small. */
const MOST_REFUSED = 1_000

/** For the last outcomes after the deadline; without a ledger they are not stored, and the tasks run again. */
const SETTLE_WITHIN_MS = 5_000

/** Builds it; the caller starts the heart, and the workers by `workers.resume()`. */
export function createHands(deps: HandsDeps): Hands {
  const { config, log, clock, ledger, broker, intake, isBadRow } = deps
  const node = () => heart.node()
  const reporter = createReporter({ ledger, clock, log, node, isBadRow })
  const settler = createSettler({ ledger, clock, log, node, isBadRow, onSettled: deps.onSettled })
  const answers = createAnswers({
    ledger,
    clock,
    log,
    node,
    mayStart: () => heart.mayStart(),
    publish: deps.publish,
    imports: deps.imports,
  })
  const threads = createThreadPool({
    threads: config.workerThreads,
    threadUrl: deps.threadUrl,
    workerData: {
      handlersDir: config.handlersDir,
      egress: config.egress,
      outDir: join(config.dataDir, 'out'),
      tables: deps.tables,
    },
    clock,
    log,
    answers,
    onReport: (reports) => reporter.report(reports),
  })
  const executor = loggedDeliveries(deps.instruments.executor(threads), log)
  const isExternal = broker.kind === 'rabbitmq'
  const workers = createWorkers<Worker>({
    start: (order) =>
      startWorker(order, {
        intake,
        executor,
        settler,
        clock,
        mayStart: () => heart.mayStart(),
        reported: (task) => reporter.written(task),
        longestDeliveryMs: isExternal ? LONGEST_DELIVERY_MS : undefined,
        takeTokens: (consumer, count) => ledger.takeTokens(consumer, count),
        onTokensFailed: (error) =>
          log.warn(
            { event: 'tokens-failed', error: messageOf(error) },
            'Cannot take tokens of a rate limit; trying again',
          ),
      }),
  })
  const state = (): NodeState => {
    const refused = deps.refused?.().slice(0, MOST_REFUSED) ?? []
    return {
      broker: broker.kind,
      ...(isExternal && { link: broker.state() }),
      ...(refused.length > 0 && { refused }),
      consumers: workers.all().map((worker) => worker.state()),
    }
  }
  const cancel = (tasks: string[]) => {
    for (const task of tasks) for (const worker of workers.all()) worker.cancel(task)
  }
  const heart = createHeart({
    ledger,
    clock,
    log,
    newId: uuidv7,
    join: (id) => deps.join(id, state()),
    leave: deps.leave,
    confirmed: deps.confirmed,
    hands: () => workers.all().flatMap((worker) => worker.hands()),
    state,
    cancel,
    onDead: () => workers.abandon(),
    async onRevived() {
      if (deps.works) workers.resume()
    },
    onOthers: deps.onOthers,
    async giveBack(settlements) {
      await Promise.all(settlements.map((settlement) => settler.settle(settlement)))
    },
  })

  let link = broker.state().status
  broker.onChange((queue) => {
    if (queue !== undefined || broker.state().status === link) return
    link = broker.state().status
    heart.beatSoon()
  })

  async function endWork(): Promise<void> {
    const settled = workers.quiet()
    if (await endsWithin(clock, config.shutdownTimeoutMs, settled)) return
    log.warn({ event: 'shutdown-deadline' }, 'The deadline is over: gives back what still runs')
    await executor.close()
    await endsWithin(clock, SETTLE_WITHIN_MS, settled)
  }

  return {
    heart,
    workers,
    executor,
    settler,
    cancel,
    threads: threads.stats,
    async end() {
      await endWork()
      answers.close()
      settler.close()
      reporter.close()
    },
  }
}
