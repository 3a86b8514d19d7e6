import { hostname } from 'node:os'
import { v7 as uuidv7 } from 'uuid'
import { checked } from '../api/validation.ts'
import { createInProcessBroker } from '../broker/in-process.ts'
import type { Config, Role } from '../config.ts'
import { createDispatcher, type Dispatcher } from '../dispatch/dispatcher.ts'
import { createRescuer } from '../dispatch/rescuer.ts'
import { createRetention } from '../dispatch/retention.ts'
import { createHeart, type Heart } from '../execution/heart.ts'
import { createReporter } from '../execution/reporter.ts'
import { createSettler } from '../execution/settler.ts'
import { createThreadPool } from '../execution/thread-pool.ts'
import { startWorker, type Worker } from '../execution/worker.ts'
import { realClock, within } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import { type Logger, tellOnEveryLine } from '../runtime/log.ts'
import type { Periodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import { VERSION } from '../runtime/version.ts'
import type { Schedules } from '../schedule/schedules.ts'
import { createScheduling } from '../schedule/scheduling.ts'
import { storedTaskReader } from '../schedule/stored-task.ts'
import type { Database } from '../store/database.ts'
import { createStoreLedger } from '../store/ledger.ts'
import { foldEndedNodes, joinNode, leaveNode, markSilentNodes, orphanedTasks } from '../store/nodes.ts'
import { createNotifications, type Notifications } from '../store/notifications.ts'
import { isRefusedRow } from '../store/statement.ts'
import { claimDueTasks, claimedTasks, nextDue } from '../store/tasks/claim.ts'
import { takeFromSilentOwners } from '../store/tasks/foreign-report.ts'
import { pruneTasks } from '../store/tasks/remove.ts'
import { readTopology } from '../store/topology.ts'
import type { Executor } from '../task/executor.ts'
import type { NodeState } from '../task/ledger.ts'
import { isFinal } from '../task/status.ts'
import { attemptOf } from '../task/task.ts'
import { createRegistry, type Registry } from '../topology/registry.ts'
import { createWorkers, type Workers } from '../topology/workers.ts'
import { createObservability, type ObservabilityApi } from './observability.ts'
import type { Stops } from './stops.ts'

/** What the API needs of the working part of a node. */
export interface Node {
  heart: Heart
  registry: Registry
  dispatcher: Dispatcher
  notifications: Notifications
  workers: Workers<Worker>
  schedules: Schedules
  /** What its services do again and again. */
  periodic: readonly Periodic[]
  observed: ObservabilityApi
  /** Says that tasks were changed, for the event feed. */
  touched(ids: string[]): void
}

/** Everything of a node but its API: it claims, runs and settles from here on. */
export async function startNode(
  config: Config,
  log: Logger,
  threadUrl: URL,
  database: Database,
  stops: Stops,
): Promise<Node> {
  const { pool, connection } = database
  const clock = realClock
  const has = (role: Role) => config.roles.includes(role)
  const id = () => heart.node()
  const mayStart = () => heart.mayStart()
  const isBadRow = isRefusedRow

  const notifications = createNotifications({ connection, log, clock })
  const observability = createObservability({ config, log, clock, database, notifications, node: id })
  const { instruments, recorder } = observability
  const ledger = instruments.ledger(createStoreLedger(pool, (queue) => registry.retryOf(queue)))
  const broker = createInProcessBroker()
  const reporter = createReporter({ ledger, clock, log, node: id, isBadRow })
  const settler = createSettler({
    ledger,
    clock,
    log,
    node: id,
    isBadRow,
    onSettled({ queue }, settled) {
      if (!settled.late && !isFinal(settled.status)) dispatcher.wake(queue, settled.delayMs)
    },
  })
  const threads = createThreadPool({
    threads: config.workerThreads,
    threadUrl,
    workerData: { handlersDir: config.handlersDir, egress: config.egress },
    clock,
    log,
    onReport: (reports) => reporter.report(reports),
  })
  const executor = instruments.executor(threads)
  const workers = createWorkers<Worker>({
    start: (order) =>
      startWorker(order, { broker, executor, settler, clock, mayStart, reported: (task) => reporter.written(task) }),
  })
  const dispatcher = createDispatcher({
    ledger: {
      claimDue: instruments.claims((request) => claimDueTasks(pool, request)),
      claimed: (request) => claimedTasks(pool, request),
      nextDue: (queues, withinMs) => nextDue(pool, queues, withinMs),
    },
    broker,
    clock,
    log,
    node: id,
    newId: uuidv7,
    mayStart,
    consumedQueues: () => [...new Set(workers.all().map((worker) => worker.order.queue))],
    async giveBack(tasks) {
      await Promise.all(tasks.map((task) => settler.settle({ ...attemptOf(task), outcome: { kind: 'returned' } })))
    },
  })
  const cancel = (tasks: string[]) => {
    for (const task of tasks) for (const worker of workers.all()) worker.cancel(task)
  }
  let consumersTold = ''
  const registry = createRegistry({
    clock,
    log,
    read: () => readTopology(pool),
    onRead(topology) {
      workers.reconcile(topology)
      // A consumer that is new or was paused finds what waits, and the ledger hears of it.
      for (const queue of new Set(workers.all().map((worker) => worker.order.queue))) dispatcher.wake(queue)
      const now = JSON.stringify(topology.consumers)
      if (now !== consumersTold) heart.beatSoon()
      consumersTold = now
    },
  })
  const state = (): NodeState => ({ broker: broker.kind, consumers: workers.all().map((worker) => worker.state()) })
  const heart = createHeart({
    ledger,
    clock,
    log,
    newId: uuidv7,
    join: (node) =>
      joinNode(pool, {
        id: node,
        name: `${hostname()}:${process.pid}`,
        version: VERSION,
        roles: config.roles,
        state: state(),
      }),
    leave: (node) => leaveNode(pool, node),
    hands: () => workers.all().flatMap((worker) => worker.hands()),
    state,
    cancel,
    onDead: () => workers.abandon(),
    async onRevived() {
      if (has('worker')) workers.resume()
    },
    onOthers: (count) => notifications.enabled(count > 0),
    async giveBack(settlements) {
      await Promise.all(settlements.map((settlement) => settler.settle(settlement)))
    },
  })
  const { scheduler, schedules } = createScheduling({
    pool,
    clock,
    log,
    node: id,
    read: storedTaskReader(checked),
    onFired(queues) {
      for (const [queue, delayMs] of queues) dispatcher.wake(queue, delayMs)
      notifications.send({ kind: 'wake', queues: [...queues.keys()] })
    },
    onChanged: () => notifications.send({ kind: 'schedules' }),
  })
  notifications.onNotice((notice) => {
    switch (notice.kind) {
      case 'wake':
        for (const queue of notice.queues) dispatcher.wake(queue)
        return
      case 'topology':
        void registry.refresh().catch((error) => log.warn({ event: 'topology-read-failed', error: messageOf(error) }))
        return
      case 'cancel':
        // Too many to be named: the beat asks which.
        if (notice.ids.length === 0) heart.beatSoon()
        else cancel(notice.ids)
        return
      case 'schedules':
        scheduler.wake()
        return
      case 'keys':
      case 'events':
      case 'events-wanted':
        return
      default:
        notice satisfies never
    }
  })

  notifications.onNotice((notice) => observability.onNotice(notice))
  stops.push(() => observability.stop())

  const periodic: Periodic[] = []
  const begin = async (service: Service) => {
    periodic.push(...(service.periodic ?? []))
    await service.start()
    stops.push(() => service.stop())
  }
  tellOnEveryLine(log, () => ({ node: id() }))
  await begin(notifications)
  await begin(heart)
  await begin(recorder)
  stops.push(() => executor.close())
  await begin(registry)
  if (has('dispatcher')) {
    await begin(
      createRescuer({
        clock,
        log,
        steadyMs: () => heart.steadyMs(),
        markSilentNodes: (silentMs) => markSilentNodes(pool, id(), silentMs).then(recorder.gapAfter),
        orphanedTasks: (limit) => orphanedTasks(pool, limit),
        settle: (node, settlements) => ledger.settle(node, settlements),
        takeFromSilentOwners: (limit) =>
          takeFromSilentOwners(pool, limit, (queue) => registry.retryOf(queue)).then(recorder.gapAfter),
        wake: (queue) => dispatcher.wake(queue),
      }),
    )
    await begin(
      createRetention({
        clock,
        log,
        queues: () => registry.queues(),
        prune: (prune) => pruneTasks(pool, id(), prune),
        foldEndedNodes: () => foldEndedNodes(pool),
      }),
    )
  }
  if (has('scheduler')) await begin(scheduler)
  if (has('worker')) {
    await begin(dispatcher)
    workers.resume()
    heart.beatSoon()
    stops.push(async () => {
      await endWork(config, log, workers, executor)
      settler.close()
      reporter.close()
    })
  }
  return {
    heart,
    registry,
    dispatcher,
    notifications,
    workers,
    schedules,
    periodic,
    observed: observability.api(threads.stats),
    touched: recorder.touched,
  }
}

/** For the last outcomes after the deadline; without a database they are not stored, and the tasks run again. */
const SETTLE_WITHIN_MS = 5_000

/** Ends the work in hand until the deadline; what then still runs is ended with its thread and given back. */
async function endWork(config: Config, log: Logger, workers: Workers<Worker>, executor: Executor): Promise<void> {
  const settled = workers.quiet()
  const inTime = settled.then(() => true)
  if (await within(realClock, config.shutdownTimeoutMs, inTime, false)) return
  log.warn({ event: 'shutdown-deadline' }, 'The deadline is over: gives back what still runs')
  await executor.close()
  await within(realClock, SETTLE_WITHIN_MS, settled, undefined)
}
