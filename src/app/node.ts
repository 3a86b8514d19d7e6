import { hostname } from 'node:os'
import { v7 as uuidv7 } from 'uuid'
import { checked } from '../api/validation.ts'
import type { Broker } from '../broker/broker.ts'
import type { Role } from '../config/variables.ts'
import type { Config } from '../config.ts'
import type { Dispatcher } from '../dispatch/dispatcher.ts'
import { createDeadLetterListener } from '../execution/dead-letter-listener.ts'
import type { Heart } from '../execution/heart.ts'
import { claimingIntake, fusedIntake } from '../execution/intake.ts'
import { realClock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import { type Logger, tellOnEveryLine } from '../runtime/log.ts'
import type { Periodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import { VERSION } from '../runtime/version.ts'
import type { Schedules } from '../schedule/schedules.ts'
import { createScheduling } from '../schedule/scheduling.ts'
import { storedTaskReader } from '../schedule/stored-task.ts'
import type { Database } from '../store/database/database.ts'
import { createNotifications, type Notifications } from '../store/database/notifications.ts'
import { isRefusedRow } from '../store/database/statement.ts'
import { createStoreLedger } from '../store/ledger.ts'
import { joinNode, leaveNode } from '../store/nodes.ts'
import { judgeDeadDeliveries } from '../store/tasks/dead-letters/dead-letters.ts'
import type { Woken } from '../store/tasks/insert/insert-addressed.ts'
import { readTopology } from '../store/topology/topology.ts'
import { addressingFor } from '../submit/addressing.ts'
import { publishAsTask } from '../submit/publish-as-task.ts'
import type { Ledger } from '../task/ledger.ts'
import { isFinal } from '../task/status.ts'
import type { ConsumerOrder } from '../task/topology/topology.ts'
import type { Reconciler } from '../topology/reconciler.ts'
import { createRegistry, type Registry } from '../topology/registry.ts'
import { createHands, type Hands } from './hands.ts'
import { dispatcherRole } from './node/dispatcher-role.ts'
import { brokerDispatching, fusedDispatching } from './node/dispatching.ts'
import { hear } from './node/notices.ts'
import { createObservability, type ObservabilityApi } from './node/observability.ts'
import { createReconciling } from './node/reconciling.ts'
import { createSourcing, type Sourcing } from './node/sourcing.ts'
import { openBroker } from './open-broker.ts'
import type { Stops } from './stops.ts'
import { tablesOf } from './tables.ts'

/** What the API needs of the working part of a node. */
export interface Node {
  broker: Broker
  reconciler: Reconciler
  ledger: Ledger
  /** Kind and vhost of its broker. */
  brokerName: string
  heart: Heart
  registry: Registry
  dispatcher: Dispatcher
  notifications: Notifications
  cancel: Hands['cancel']
  schedules: Schedules
  /** What its services do again and again. */
  periodic: readonly Periodic[]
  observed: ObservabilityApi
  sourcing: Sourcing
  /** Queues have work, here and for the other nodes: now, or each after its milliseconds. */
  wakeAll(queues: Iterable<string>): void
  wakeAllAfter(woken: Woken): void
  /** Queues, exchanges, bindings or consumers were changed: this node and the others read them. */
  topologyChanged(): void
  /** Says that tasks were changed, for the event feed. */
  touched(ids: string[]): void
}

/** For confirms that are on their way when the node stops; what is not known then is sent again by others. */
const PUBLISHED_WITHIN_MS = 3_000

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
  // What workers without a database cannot do, a node that polls does, too, and nothing else if it is no worker.
  const works = has('worker') || has('scheduler')
  const worksOn = ({ target }: ConsumerOrder) => has('worker') || target.type === 'import' || target.type === 'table'
  const id = () => heart.node()
  const touched = (ids: string[]) => recorder.touched(ids)
  const wake = (queues: Iterable<string>) => {
    for (const queue of queues) dispatcher.wake(queue)
  }
  const wakeAllAfter = (woken: Woken) => {
    for (const [queue, delayMs] of woken) dispatcher.wake(queue, delayMs)
    notifications.send({ kind: 'wake', queues: [...woken.keys()] })
  }
  const wakeAll = (queues: Iterable<string>) => wakeAllAfter(new Map(Array.from(queues, (queue) => [queue, 0])))
  const refresh = () =>
    registry.refresh().catch((error) => log.warn({ event: 'topology-read-failed', error: messageOf(error) }))
  const topologyChanged = () => {
    void refresh()
    notifications.send({ kind: 'topology' })
  }

  const notifications = createNotifications({ connection, log, clock })
  const observability = createObservability({ config, log, clock, database, notifications, node: id })
  const { instruments, recorder } = observability
  const ledger = instruments.ledger(createStoreLedger(pool, (queue) => registry.retryOf(queue)))
  const { broker, name: brokerName, service: brokerService } = await openBroker(config, log, clock)
  const isExternal = broker.kind === 'rabbitmq'
  const sourcing = await createSourcing({
    config,
    log,
    clock,
    database,
    broker: broker.kind,
    node: id,
    mayStart: () => heart.mayStart(),
    wake: wakeAll,
    touched,
    tellSources: () => notifications.send({ kind: 'sources' }),
    topologyChanged,
  })
  const hands = createHands({
    config,
    log,
    clock,
    threadUrl,
    ledger,
    broker,
    intake: isExternal
      ? claimingIntake({
          broker,
          ledger,
          clock,
          log,
          node: id,
          newId: uuidv7,
          mayStart: () => heart.mayStart(),
          isBadRow: isRefusedRow,
          onClaimed: (queue, tasks) => dispatching.taken(queue, tasks),
        })
      : fusedIntake(broker),
    instruments,
    tables: tablesOf(config, connection),
    imports: observability.imports(sourcing.imports),
    async publish(message) {
      if (isExternal) return (await broker.publish([message]))[0] ?? 'unknown'
      return publishAsTask({ pool, nodeId: id, onStored: (queue) => wakeAll([queue]) }, message)
    },
    isBadRow: isRefusedRow,
    join: (node, state) =>
      joinNode(pool, {
        ...{ id: node, name: `${hostname()}:${process.pid}`, version: VERSION, roles: config.roles },
        ...{ broker: brokerName, state },
      }),
    leave: (node) => leaveNode(pool, node, dispatching.confirmed()),
    confirmed: () => dispatching.confirmed(),
    refused: () => dispatching.refused(),
    works,
    onSettled({ queue }, settled) {
      if (!settled.late && !isFinal(settled.status)) dispatcher.wake(queue, settled.delayMs)
    },
    onOthers: (count) => notifications.enabled(count > 0),
  })
  const { heart, workers, executor, cancel, threads, end } = hands
  const reconciler = createReconciling({ pool, clock, log, broker, brokerName, touched, wake, topologyChanged })
  const deadLetters = createDeadLetterListener({
    broker,
    clock,
    log,
    isBadRow: isRefusedRow,
    async judge(deliveries) {
      const judged = await judgeDeadDeliveries(pool, id(), deliveries)
      touched(judged.touched)
      wake(judged.queues)
    },
  })
  let consumersTold = ''
  const registry = createRegistry({
    clock,
    log,
    read: () => readTopology(pool),
    onRead(topology, changed) {
      reconciler.desire(topology)
      workers.reconcile({ ...topology, consumers: topology.consumers.filter(worksOn) })
      if (isExternal && has('dispatcher')) deadLetters.follow(topology.queues)
      // A consumer that is new or was paused finds what waits, and the ledger hears of it.
      wake(new Set(workers.all().map((worker) => worker.order.queue)))
      wake(changed)
      const now = JSON.stringify(topology.consumers)
      if (now !== consumersTold) heart.beatSoon()
      consumersTold = now
    },
  })
  const dispatching = (isExternal ? brokerDispatching : fusedDispatching)({
    database,
    clock,
    log,
    broker,
    instruments,
    hands,
    registry,
    reconciler,
    touched,
  })
  const { dispatcher } = dispatching
  const { scheduler, schedules } = createScheduling({
    pool,
    clock,
    log,
    node: id,
    read: storedTaskReader(checked),
    addressing: addressingFor(broker.kind),
    onFired: wakeAllAfter,
    onChanged: () => notifications.send({ kind: 'schedules' }),
  })
  notifications.onNotice((notice) => hear(notice, { heart, scheduler, sourcing, cancel, wake, refresh }))
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
  if (brokerService) await begin(brokerService)
  await begin(registry)
  await begin(reconciler)
  if (has('dispatcher')) {
    const deps = { pool, clock, log, heart, ledger, registry, recorder, wake: dispatcher.wake }
    for (const service of dispatcherRole(deps)) await begin(service)
  }
  if (has('scheduler')) for (const service of [scheduler, ...sourcing.scheduled]) await begin(service)
  for (const service of sourcing.everywhere) await begin(service)
  // In-process, whoever works dispatches for itself.
  if (isExternal ? has('dispatcher') : works) {
    for (const service of dispatching.services) await begin(service)
    stops.push(() => dispatching.idle(PUBLISHED_WITHIN_MS))
    await begin(dispatcher)
    stops.push(async () => deadLetters.stop())
  }
  if (works) {
    workers.resume()
    heart.beatSoon()
    stops.push(end)
  }
  return {
    broker,
    reconciler,
    ledger,
    brokerName,
    heart,
    registry,
    dispatcher,
    notifications,
    cancel,
    schedules,
    periodic,
    observed: observability.api(threads, () => broker.state()),
    sourcing,
    wakeAll,
    wakeAllAfter,
    topologyChanged,
    touched,
  }
}
