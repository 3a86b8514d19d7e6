import type { Access } from '../../api/access.ts'
import type { ApiDeps } from '../../api/app.ts'
import { cached } from '../../api/cached.ts'
import { createEventFeed, type EventFeed } from '../../api/events/feed.ts'
import { eventRoutes } from '../../api/routes/events.ts'
import type { Config } from '../../config.ts'
import { type ChangeRecorder, createChangeRecorder } from '../../execution/change-recorder.ts'
import { measuredImports } from '../../execution/import-instruments.ts'
import { createInstruments, type Instruments } from '../../execution/instruments.ts'
import type { ThreadPoolStats } from '../../execution/threads/pool.ts'
import { type Clock, within } from '../../runtime/clock.ts'
import type { Logger } from '../../runtime/log.ts'
import { createMetrics, type Readings } from '../../runtime/telemetry/metrics.ts'
import { createTracing, noTracing, type Tracing } from '../../runtime/telemetry/tracing.ts'
import { VERSION } from '../../runtime/version.ts'
import type { Database } from '../../store/database/database.ts'
import type { Notice } from '../../store/database/notice.ts'
import type { Notifications } from '../../store/database/notifications.ts'
import {
  appendEvents,
  eventsWantedMs,
  lastEvent,
  missedEvents,
  pruneEvents,
  readEvents,
  wantEvents,
} from '../../store/events.ts'
import { acceptedBy, nodeFigures } from '../../store/figures.ts'
import { movingFiles, sourceFigures } from '../../store/files/list.ts'
import { listNodes } from '../../store/node-list.ts'
import { noFigures, queueFigures } from '../../store/topology/queues.ts'
import { readTopology } from '../../store/topology/topology.ts'
import type { BrokerState } from '../../task/ledger.ts'
import type { ImportLedger } from '../../task/source/import.ts'

export interface ObservabilityDeps {
  config: Config
  log: Logger
  clock: Clock
  database: Database
  notifications: Notifications
  /** This node's present id. */
  node(): string
}

/** What tells the outside how a node does: events, metrics, traces. The part of the composition root that builds them. */
export interface Observability {
  instruments: Instruments
  /** Counts what imports read. */
  imports(imports: ImportLedger): ImportLedger
  recorder: ChangeRecorder
  /** Handles notices about events. */
  onNotice(notice: Notice): void
  /** The API's side, with what a scrape reads. */
  api(threads: () => ThreadPoolStats, broker: () => BrokerState): ObservabilityApi
  stop(): Promise<void>
}

export interface ObservabilityApi {
  feed: EventFeed
  tracing: Tracing
  /** Says that tasks were stored. */
  submitted(ids: string[]): void
  deps: Required<Pick<ApiDeps, 'metricsText' | 'onAnswered'>>
  routes(access: Access): ReturnType<typeof eventRoutes>
}

/** Figures of the whole cluster cost a statement that counts what waits. */
const FIGURES_EVERY_MS = 5_000
const FIGURES_AT_LEAST_EVERY_MS = 60_000
/** A scrape does not wait for a database that is away. */
const FIGURES_WITHIN_MS = 1_000
const NODES_LISTED = 500
const FILES_TOLD = 500

export function createObservability({
  config,
  log,
  clock,
  database,
  notifications,
  node,
}: ObservabilityDeps): Observability {
  const { pool, db } = database
  const metrics = createMetrics()
  const tracing = config.tracing
    ? createTracing({
        settings: config.tracing,
        version: VERSION,
        clock,
        log,
        onLost: (spans) => metrics.spansLost(spans),
      })
    : noTracing
  let feed: EventFeed | undefined
  const recorder = createChangeRecorder({
    clock,
    log,
    append: (ids, gap) => appendEvents(pool, ids, gap),
    prune: () => pruneEvents(pool),
    wantedMs: () => eventsWantedMs(pool),
    onAppended() {
      notifications.send({ kind: 'events' })
      feed?.look()
    },
  })
  const instruments = createInstruments({
    clock,
    metrics,
    tracing,
    touched: (ids) => recorder.touched(ids),
    isHeard: () => recorder.active(),
  })

  /** Counters never go back, whatever becomes of the rows of an id that this node had before. */
  const accepted = new Map<string, { queue: string; origin: string; count: number }>()
  const ids = new Set<string>()
  async function readAccepted(): Promise<Readings['accepted']> {
    ids.add(node())
    for (const { node: id, queue, origin, count } of await acceptedBy(pool, [...ids])) {
      const before = accepted.get(`${id} ${queue} ${origin}`)?.count ?? 0
      accepted.set(`${id} ${queue} ${origin}`, { queue, origin, count: Math.max(before, count) })
    }
    return [...accepted.values()]
  }

  const cluster = cached(
    async () => {
      const [queues, nodes, topology, { files, sources }] = await Promise.all([
        queueFigures(db),
        nodeFigures(pool),
        readTopology(pool),
        sourceFigures(pool),
      ])
      const paused = new Set(topology.queues.flatMap(({ name, paused }) => (paused ? [name] : [])))
      const taken = topology.consumers.filter((consumer) => !consumer.paused && !paused.has(consumer.queue))
      for (const { name } of topology.queues) if (!queues.has(name)) queues.set(name, noFigures())
      const takenQueues = new Set(taken.map(({ queue }) => queue))
      return { queues, nodes, files, sources, takenQueues, accepted: await readAccepted() }
    },
    { minMs: FIGURES_EVERY_MS, maxMs: FIGURES_AT_LEAST_EVERY_MS },
  )

  async function readings(threads: ThreadPoolStats, broker: BrokerState): Promise<Readings> {
    const known = cluster().catch(() => undefined)
    const figures = await within(clock, FIGURES_WITHIN_MS, known, undefined)
    const { spawned, crashed, ...present } = threads
    return {
      accepted: figures?.accepted,
      queues: figures?.queues,
      takenQueues: figures?.takenQueues ?? new Set(),
      nodes: figures?.nodes,
      threads: present,
      threadsSpawned: spawned,
      threadsCrashed: crashed,
      pool: { total: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount },
      broker: broker.status,
      eventClients: feed?.clients() ?? 0,
      files: figures?.files,
      sources: figures && { ...figures.sources },
    }
  }

  return {
    instruments,
    imports: (imports) => measuredImports(imports, metrics),
    recorder,
    onNotice(notice) {
      if (notice.kind === 'events') feed?.look()
      else if (notice.kind === 'events-wanted') void recorder.look()
      else if (notice.kind === 'keys') feed?.closeAll()
    },
    api(threads, broker) {
      const events = createEventFeed({
        clock,
        log,
        read: (after, limit) => readEvents(pool, after, limit),
        last: () => lastEvent(pool),
        missed: (id, maxTasks) => missedEvents(pool, id, maxTasks),
        async want(forMs) {
          await wantEvents(pool, forMs)
          notifications.send({ kind: 'events-wanted' })
          await recorder.wanted(forMs)
        },
        queues: async () => (await cluster()).queues,
        nodes: () => listNodes(db, NODES_LISTED),
        files: (ids) => movingFiles(pool, ids, FILES_TOLD),
        onCut: () => metrics.eventClientCut(),
      })
      feed = events
      return {
        feed: events,
        tracing,
        submitted: instruments.submitted,
        deps: {
          metricsText: async () => metrics.text(await readings(threads(), broker())),
          onAnswered: (request) => metrics.request(request),
        },
        routes: (access) => eventRoutes(access, { events }),
      }
    },
    async stop() {
      metrics.stop()
      await tracing.stop()
    },
  }
}
