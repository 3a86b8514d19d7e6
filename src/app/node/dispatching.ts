import { v7 as uuidv7 } from 'uuid'
import type { Broker } from '../../broker/broker.ts'
import { type BrokerHandOver, createBrokerHandOver } from '../../dispatch/broker-hand-over.ts'
import { createDispatcher, type Dispatcher } from '../../dispatch/dispatcher.ts'
import { createFusedHandOver } from '../../dispatch/fused-hand-over.ts'
import { createPublishNumbers } from '../../dispatch/publish-numbers.ts'
import { createRefusals } from '../../dispatch/refusals.ts'
import { createTaskPublisher } from '../../dispatch/task-publisher.ts'
import { createWindows } from '../../dispatch/windows.ts'
import type { Instruments } from '../../execution/instruments.ts'
import type { Clock } from '../../runtime/clock.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Service } from '../../runtime/service.ts'
import type { Database } from '../../store/database/database.ts'
import { workOfQueues } from '../../store/node-list.ts'
import { returnQueuedTasks } from '../../store/tasks/at-broker/lost-publishes.ts'
import { claimDueTasks, claimedTasks, nextDue } from '../../store/tasks/claim/claim.ts'
import { claimedForBroker, claimForBroker, finishConfirmed } from '../../store/tasks/claim/claim-for-broker.ts'
import { attemptOf } from '../../task/task.ts'
import { lineOf } from '../../task/topology/exchange.ts'
import type { Destination } from '../../task/topology/topology.ts'
import type { Reconciler } from '../../topology/reconciler.ts'
import type { Registry } from '../../topology/registry.ts'
import type { Hands } from '../hands.ts'
import { exchangeLook, withFanOuts, withOpenedFanOuts } from './fan-outs.ts'

export interface DispatchingDeps {
  database: Database
  clock: Clock
  log: Logger
  broker: Broker
  instruments: Pick<Instruments, 'claims'>
  hands: Pick<Hands, 'heart' | 'workers' | 'settler'>
  registry: Registry
  reconciler: Reconciler
  /** Says that these tasks were changed. */
  touched(ids: string[]): void
}

/** How tasks get from Postgres to workers on this node. */
export interface Dispatching {
  dispatcher: Dispatcher
  /** What runs beside it. */
  services: Service[]
  /** Where the broker does not let this node publish. */
  refused(): Destination[]
  /** Every publish of this node up to this number is confirmed; 0 in-process. */
  confirmed(): number
  /** Says that workers of this node took tasks of a queue from the broker. */
  taken(queue: string, tasks: number): void
  /** Resolves when nothing is on its way to the broker, or after `ms`. */
  idle(ms: number): Promise<void>
}

/** In-process: one claim serves dispatcher and worker, for the queues that this node's consumers take from. */
export function fusedDispatching(deps: DispatchingDeps): Dispatching {
  const { database, clock, log, broker, instruments, hands, registry } = deps
  const { pool } = database
  const { heart, workers, settler } = hands
  const mayStart = () => heart.mayStart()
  const handOver = createFusedHandOver({
    ledger: {
      claimDue: instruments.claims((request) => claimDueTasks(pool, request)),
      claimed: (request) => claimedTasks(pool, request),
    },
    broker,
    clock,
    log,
    node: () => heart.node(),
    newId: uuidv7,
    orderOf: (queue) => registry.queue(queue)?.order ?? 'due',
    mayStart,
    async giveBack(tasks) {
      await Promise.all(tasks.map((task) => settler.settle({ ...attemptOf(task), outcome: { kind: 'returned' } })))
    },
  })
  const dispatcher = createDispatcher({
    handOver,
    clock,
    log,
    mayStart,
    nextDue: (queues, withinMs) => nextDue(pool, queues, withinMs),
    dispatchedQueues: () => [...new Set(workers.all().map((worker) => worker.order.queue))],
  })
  return {
    dispatcher: withOpenedFanOuts(dispatcher, deps),
    services: [],
    refused: () => [],
    confirmed: () => 0,
    taken() {},
    idle: async () => {},
  }
}

/** Through RabbitMQ: tasks of every queue are handed to the broker, as many as its window takes. */
export function brokerDispatching(deps: DispatchingDeps): Dispatching {
  const { database, clock, log, broker, hands, registry, reconciler, touched } = deps
  const { pool, db } = database
  const { heart, workers } = hands
  const mayStart = () => heart.mayStart()
  const queue = (name: string) => registry.queue(name)
  const windows = createWindows({
    clock,
    log,
    readElsewhere: () => workOfQueues(db, heart.node()),
    here(name) {
      const mine = workers.all().flatMap((worker) => (worker.order.queue === name ? [worker.state()] : []))
      return {
        slots: mine.reduce((sum, { concurrency }) => sum + concurrency, 0),
        rate: mine.reduce((sum, { rate }) => sum + rate, 0),
      }
    },
    given: (name) => queue(name)?.window ?? null,
  })
  const numbers = createPublishNumbers()
  const refusals = createRefusals({
    clock,
    onChange: heart.beatSoon,
    onOver({ kind, name }) {
      // What has to go through an exchange waits in any of the queues, and in its own line.
      if (kind === 'exchange') dispatcher.wake(lineOf(name))
      for (const one of kind === 'queue' ? [name] : registry.queues().map((queue) => queue.name)) dispatcher.wake(one)
    },
  })
  const told = { onMissing: reconciler.recheck, onRefused: refusals.add }
  const exchanges = exchangeLook(deps, refusals)
  const handOver: BrokerHandOver = createBrokerHandOver({
    ledger: {
      async claimForBroker(claim) {
        const claimed = await claimForBroker(pool, claim)
        touched(claimed.tasks.map(({ id }) => id))
        return claimed
      },
      claimedForBroker: (claim) => claimedForBroker(pool, claim),
      async finishConfirmed(node, publishNo, ids) {
        await finishConfirmed(pool, node, publishNo, ids)
        touched(ids)
      },
      async returnQueued(ids) {
        await returnQueuedTasks(pool, ids)
        touched(ids)
      },
    },
    broker,
    publish: createTaskPublisher({ ...exchanges, broker, log, ...told }),
    numbers,
    clock,
    log,
    node: () => heart.node(),
    mayStart,
    isReady: (name) => reconciler.isReady(name) && !refusals.has({ kind: 'queue', name }),
    unreadyExchanges: () =>
      registry.exchanges().flatMap(({ name }) => (exchanges.declaredVersion(name) === undefined ? [name] : [])),
    endsByConfirm: (name) => queue(name)?.settlement === 'confirm',
    window: (name) => windows.of(name),
    orderOf: (name) => queue(name)?.order ?? 'due',
    ...told,
  })
  const queues = createDispatcher({
    handOver,
    clock,
    log,
    mayStart,
    nextDue: (names, withinMs) => nextDue(pool, names, withinMs),
    dispatchedQueues: () => registry.queues().flatMap(({ name, paused }) => (paused ? [] : [name])),
  })
  const dispatcher = withFanOuts(queues, deps, { ...exchanges, ...told, numbers })
  return {
    dispatcher,
    services: [windows, refusals],
    refused: refusals.all,
    confirmed: numbers.confirmed,
    taken: handOver.taken,
    idle: handOver.idle,
  }
}
