import type { ConsumerOrder } from '../task/topology/topology.ts'
import type { WorkerTopology } from '../task/worker-protocol.ts'

/** What is asked of a consumer's worker here. */
export interface RunningWorker {
  quiet(): void
  /** Goes by `order` from now on, and works again after `quiet`. */
  update(order: ConsumerOrder): void
  abandon(): void
  idle(): Promise<void>
  cancel(id: string): boolean
}

export interface WorkersDeps<W extends RunningWorker> {
  start(order: ConsumerOrder): W
}

export interface Workers<W extends RunningWorker> {
  /** Starts, changes and quiets workers until they are what the rows say. */
  reconcile(topology: WorkerTopology): void
  /** Those at work, and those that still end what they had. */
  all(): W[]
  /** Takes nothing more, gives back what was not started; resolves when all is settled. */
  quiet(): Promise<void>
  /** Forgets all work without settling it; resolves when nothing of it runs. */
  abandon(): Promise<void>
  /** Reconciles again after `quiet` or `abandon`. */
  resume(): void
}

/**
 * Consumers as they should be, made workers as they are. A consumer has one worker here, which is changed in place and
 * taken back when it still ends something: so its concurrency holds over every change.
 */
export function createWorkers<W extends RunningWorker>({ start }: WorkersDeps<W>): Workers<W> {
  const active = new Map<string, { order: string; worker: W }>()
  const leaving = new Map<string, W>()
  const abandoned = new Set<W>()
  let desired: WorkerTopology = { queues: [], consumers: [] }
  let halted = true

  function leave(id: string, worker: W): void {
    active.delete(id)
    leaving.set(id, worker)
    worker.quiet()
    void worker.idle().then(() => {
      if (leaving.get(id) === worker) leaving.delete(id)
    })
  }

  /** A queue that is paused or stands still, or a paused consumer, has no worker: its buffer goes back and nothing new is claimed. */
  function wanted(): Map<string, ConsumerOrder> {
    const paused = new Set(desired.queues.flatMap((one) => (one.paused || one.conflict !== null ? [one.name] : [])))
    const consumers = desired.consumers.filter((consumer) => !consumer.paused && !paused.has(consumer.queue))
    return new Map(consumers.map((consumer) => [consumer.id, consumer]))
  }

  function apply(): void {
    if (halted) return
    const orders = wanted()
    for (const [id, { worker }] of active) if (!orders.has(id)) leave(id, worker)
    for (const [id, next] of orders) {
      const order = JSON.stringify(next)
      const entry = active.get(id)
      if (entry?.order === order) continue
      const worker = entry?.worker ?? leaving.get(id)
      worker?.update(next)
      leaving.delete(id)
      active.set(id, { order, worker: worker ?? start(next) })
    }
  }

  return {
    reconcile(topology) {
      desired = topology
      apply()
    },
    all: () => [...[...active.values()].map((entry) => entry.worker), ...leaving.values(), ...abandoned],
    async quiet() {
      halted = true
      for (const [id, { worker }] of [...active]) leave(id, worker)
      await Promise.all([...leaving.values(), ...abandoned].map((worker) => worker.idle()))
    },
    async abandon() {
      halted = true
      for (const worker of [...[...active.values()].map((entry) => entry.worker), ...leaving.values()]) {
        abandoned.add(worker)
        worker.abandon()
        void worker.idle().then(() => abandoned.delete(worker))
      }
      active.clear()
      leaving.clear()
      await Promise.all([...abandoned].map((worker) => worker.idle()))
    },
    resume() {
      halted = false
      apply()
    },
  }
}
