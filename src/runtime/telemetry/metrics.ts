import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** Work that is done in batches. */
export type BatchStep = 'submit' | 'claim' | 'settle'

/** What is read when the metrics are asked for; undefined when the database does not answer. */
export interface Readings {
  /** Tasks that this node has accepted, by queue and origin; never less than before. */
  accepted: { queue: string; origin: string; count: number }[] | undefined
  /** All nodes' queues. */
  queues: Map<string, { depth: object; oldestWaitingMs: number | null }> | undefined
  /** Queues from which tasks are taken: neither they nor all of their consumers are paused. */
  takenQueues: ReadonlySet<string>
  nodes: { alive: number; dead: number; left: number; oldestBeatMs: number } | undefined
  threads: {
    threads: number
    lanes: number
    retiring: number
    alone: number
    stuck: number
    running: number
    waiting: number
  }
  threadsSpawned: number
  threadsCrashed: number
  pool: { total: number; idle: number; waiting: number }
  broker: 'up' | 'down' | 'blocked'
  eventClients: number
  /** Of the whole cluster: files that are not finished by status, and sources by what is up with them. */
  files: Readonly<Record<string, number>> | undefined
  sources: Readonly<Record<string, number>> | undefined
}

/** Counts what a node does, and tells it to Prometheus. Labels are bounded: queues, statuses, outcomes, routes. */
export interface Metrics {
  batch(step: BatchStep, tasks: number): void
  /** Tasks of one claim: for how long each had been due, in milliseconds. */
  waited(queue: string, waits: readonly number[]): void
  ran(queue: string, ms: number): void
  finished(queue: string, status: string, outcome: string, count: number): void
  late(queue: string, count: number): void
  request(request: { route: string; method: string; status: number; ms: number }): void
  /** A batch of an import that was committed. */
  imported(batch: { bytes: number; records: number; rejects: number }): void
  eventClientCut(): void
  spansLost(count: number): void
  /** The exposition text (version 0.0.4). */
  text(readings: Readings): Promise<string>
  /** Ends its timer. */
  stop(): void
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800]
const REQUEST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const BATCH_TASKS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 10_000]
const LAG_EVERY_MS = 500

export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  const counter = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Counter({ name: `longshore_${name}`, help, labelNames, registers })
  const gauge = <L extends string>(name: string, help: string, ...labelNames: L[]) =>
    new Gauge({ name: `longshore_${name}`, help, labelNames, registers })
  const histogram = <L extends string>(name: string, help: string, buckets: number[], ...labelNames: L[]) =>
    new Histogram({ name: `longshore_${name}`, help, buckets, labelNames, registers })

  const accepted = counter('tasks_accepted_total', 'Tasks that this node has stored', 'queue', 'origin')
  const finished = counter(
    'attempts_finished_total',
    'Attempts that ended on this node, by what the task became and how the attempt ended',
    ...(['queue', 'status', 'outcome'] as const),
  )
  const retries = counter('retries_total', 'Attempts that failed and will be followed by another one', 'queue')
  const late = counter(
    'outcomes_late_total',
    'Outcomes that came after their attempt was no longer this node’s',
    'queue',
  )
  const wait = histogram('task_wait_seconds', 'From when a task was due to when a node took it', SECONDS, 'queue')
  const run = histogram('task_run_seconds', 'How long attempts ran at their targets', SECONDS, 'queue')
  const batch = histogram('batch_tasks', 'Tasks in one statement, by step', BATCH_TASKS, 'step')
  const requests = counter('http_requests_total', 'API requests answered', 'route', 'method', 'status_class')
  const requestTime = histogram(
    'http_request_duration_seconds',
    'From an API request to its answer (of a stream, to its beginning)',
    REQUEST_SECONDS,
    ...(['route', 'method', 'status_class'] as const),
  )
  const fileBytes = counter('file_bytes_read_total', 'Bytes of files that imports on this node have read')
  const fileRecords = counter('file_records_read_total', 'Records that imports on this node have read')
  const fileRejects = counter('file_records_rejected_total', 'Records among them that were refused')
  const clientsCut = counter('event_clients_cut_total', 'Clients of the event feed that did not read and were cut')
  const spans = counter('trace_spans_lost_total', 'Trace spans that could not be exported')
  const spawned = counter('threads_spawned_total', 'Worker threads that were started')
  const crashed = counter('threads_crashed_total', 'Worker threads that ended unasked or did not start')

  const depth = gauge('queue_tasks', 'Tasks of the whole cluster, by queue and status', 'queue', 'status')
  const oldest = gauge('queue_oldest_seconds', 'For how long the oldest waiting task has been due (cluster)', 'queue')
  const lag = gauge(
    'dispatcher_lag_seconds',
    'For how long the oldest task that could be taken has been due (cluster); 0 when nothing is overdue',
  )
  const nodes = gauge('nodes', 'Nodes of the cluster, by status', 'status')
  const beat = gauge('node_beat_age_seconds', 'Age of the oldest last beat among nodes that live (cluster)')
  const files = gauge('files', 'Files that are not finished (cluster), by status', 'status')
  const sources = gauge('sources', 'Sources (cluster); some are in several states', 'state')
  const threads = gauge('threads', 'Worker threads of this node, by state', 'state')
  const executing = gauge('executor_tasks', 'Tasks at this node’s threads, by state', 'state')
  const pool = gauge('database_connections', 'Connections to the database, by state', 'state')
  const poolWaiting = gauge('database_waiting', 'Statements that wait for a connection')
  const up = gauge('database_up', '1 when the cluster’s figures could be read, else 0')
  const brokerUp = gauge('broker_up', '1 while this node has its broker, else 0')
  const brokerBlocked = gauge('broker_blocked', '1 while the broker takes no messages from this node, else 0')
  const eventClients = gauge('event_clients', 'Clients of the event feed on this node')
  const loopLag = gauge(
    'event_loop_lag_seconds',
    'How late the main thread’s event loop was at worst since the last scrape',
  )
  const memory = new Gauge({ name: 'process_resident_memory_bytes', help: 'Resident memory in bytes', registers })
  const cpu = new Counter({ name: 'process_cpu_seconds_total', help: 'Processor time spent in seconds', registers })
  const startTime = new Gauge({
    name: 'process_start_time_seconds',
    help: 'Start of the process in seconds since 1970',
    registers,
  })
  startTime.set(Math.round(Date.now() / 1000 - process.uptime()))

  let worstLagMs = 0
  let expectedAt = performance.now() + LAG_EVERY_MS
  const timer = setInterval(() => {
    worstLagMs = Math.max(worstLagMs, performance.now() - expectedAt)
    expectedAt = performance.now() + LAG_EVERY_MS
  }, LAG_EVERY_MS)
  timer.unref()

  function take(readings: Readings): void {
    if (readings.accepted) {
      accepted.reset()
      for (const { queue, origin, count } of readings.accepted) accepted.inc({ queue, origin }, count)
    }
    up.set(readings.queues && readings.nodes ? 1 : 0)
    depth.reset()
    oldest.reset()
    lag.reset()
    let overdueMs = 0
    for (const [queue, figures] of readings.queues ?? []) {
      for (const [status, count] of Object.entries<number>(figures.depth as Record<string, number>))
        depth.set({ queue, status }, count)
      oldest.set({ queue }, (figures.oldestWaitingMs ?? 0) / 1000)
      if (readings.takenQueues.has(queue)) overdueMs = Math.max(overdueMs, figures.oldestWaitingMs ?? 0)
    }
    lag.set(overdueMs / 1000)
    nodes.reset()
    if (readings.nodes) {
      const { oldestBeatMs, ...counts } = readings.nodes
      for (const [status, count] of Object.entries(counts)) nodes.set({ status }, count)
      beat.set(oldestBeatMs / 1000)
    }
    files.reset()
    for (const [status, count] of Object.entries(readings.files ?? {})) files.set({ status }, count)
    sources.reset()
    for (const [state, count] of Object.entries(readings.sources ?? {})) sources.set({ state }, count)
    const { running, waiting, threads: ready, ...others } = readings.threads
    const byState = { ready, ...others }
    for (const [state, count] of Object.entries(byState)) threads.set({ state }, count)
    executing.set({ state: 'running' }, running)
    executing.set({ state: 'waiting' }, waiting)
    set(spawned, readings.threadsSpawned)
    set(crashed, readings.threadsCrashed)
    pool.set({ state: 'idle' }, readings.pool.idle)
    pool.set({ state: 'busy' }, readings.pool.total - readings.pool.idle)
    poolWaiting.set(readings.pool.waiting)
    brokerUp.set(readings.broker === 'down' ? 0 : 1)
    brokerBlocked.set(readings.broker === 'blocked' ? 1 : 0)
    eventClients.set(readings.eventClients)
    loopLag.set(Math.max(0, worstLagMs) / 1000)
    worstLagMs = 0
    memory.set(process.memoryUsage.rss())
    const { user, system } = process.cpuUsage()
    set(cpu, (user + system) / 1e6)
  }

  return {
    batch: (step, tasks) => batch.observe({ step }, tasks),
    waited(queue, waits) {
      const labels = { queue }
      for (const ms of waits) wait.observe(labels, ms / 1000)
    },
    ran: (queue, ms) => run.observe({ queue }, ms / 1000),
    finished(queue, status, outcome, count) {
      finished.inc({ queue, status, outcome }, count)
      if (status === 'retrying') retries.inc({ queue }, count)
    },
    late: (queue, count) => late.inc({ queue }, count),
    request({ route, method, status, ms }) {
      const labels = { route, method, status_class: `${Math.floor(status / 100)}xx` }
      requests.inc(labels)
      requestTime.observe(labels, ms / 1000)
    },
    imported({ bytes, records, rejects }) {
      fileBytes.inc(bytes)
      fileRecords.inc(records)
      fileRejects.inc(rejects)
    },
    eventClientCut: () => clientsCut.inc(),
    spansLost: (count) => spans.inc(count),
    text(readings) {
      take(readings)
      return registry.metrics()
    },
    stop: () => clearInterval(timer),
  }
}

/** Brings a counter that is counted elsewhere to its present value. */
function set(counter: Counter, value: number): void {
  counter.reset()
  counter.inc(value)
}
