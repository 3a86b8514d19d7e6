import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import { DEFAULT_RETRY_POLICY, type RetryPolicy } from '../task/retry-policy.ts'
import type { ExchangeOrder, QueueOrder, Topology } from '../task/topology/topology.ts'

export interface RegistryDeps {
  clock: Clock
  log: Logger
  read(): Promise<Topology>
  /** Told after every reading, with the queues that are new or otherwise than before. */
  onRead(topology: Topology, changed: readonly string[]): void
}

export interface Registry extends Service {
  queues(): QueueOrder[]
  queue(name: string): QueueOrder | undefined
  exchanges(): ExchangeOrder[]
  retryOf(queue: string): RetryPolicy
  /** Reads the rows again; resolves when `onRead` has seen what was committed before the call. */
  refresh(): Promise<void>
}

/** Behind every notice stands this poll. */
const POLL_MS = 10_000

/** Keeps what the rows say of queues and consumers at hand. */
export function createRegistry({ clock, log, read, onRead }: RegistryDeps): Registry {
  let queues = new Map<string, QueueOrder>()
  let exchanges: ExchangeOrder[] = []
  let reading: Promise<void> | undefined
  let next: Promise<void> | undefined

  async function readOnce(): Promise<void> {
    const topology = await read()
    const before = queues
    queues = new Map(topology.queues.map((queue) => [queue.name, queue]))
    exchanges = topology.exchanges
    const isOther = (queue: QueueOrder) => JSON.stringify(queue) !== JSON.stringify(before.get(queue.name))
    onRead(
      topology,
      topology.queues.filter(isOther).map(({ name }) => name),
    )
  }

  /** A call during a reading waits for one more, which all such calls share. */
  function refresh(): Promise<void> {
    if (!reading) {
      reading = readOnce().finally(() => {
        reading = undefined
      })
      return reading
    }
    next ??= reading
      .catch(() => {})
      .then(() => {
        next = undefined
        return refresh()
      })
    return next
  }

  const poll = createPeriodic({
    name: 'topology-poll',
    description: 'Reads queues and consumers again; notices are faster, this is behind them',
    everyMs: POLL_MS,
    later: true,
    clock,
    run: refresh,
    onError: (error) => log.warn({ event: 'topology-read-failed', error: messageOf(error) }),
  })

  return {
    periodic: [poll],
    queues: () => [...queues.values()],
    queue: (name) => queues.get(name),
    exchanges: () => exchanges,
    retryOf: (queue) => queues.get(queue)?.retry ?? DEFAULT_RETRY_POLICY,
    refresh,
    async start() {
      await refresh()
      poll.start()
    },
    async stop() {
      await poll.stop()
      await (next ?? reading)?.catch(() => {})
    },
  }
}
