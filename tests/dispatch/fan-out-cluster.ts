import type { Message, PublishEnd } from '../../src/broker/broker.ts'
import { createBrokerHandOver } from '../../src/dispatch/broker-hand-over.ts'
import type { HandOver } from '../../src/dispatch/dispatcher.ts'
import { createFanOutHandOver } from '../../src/dispatch/fan-out.ts'
import { createPublishNumbers } from '../../src/dispatch/publish-numbers.ts'
import { createTaskPublisher } from '../../src/dispatch/task-publisher.ts'
import { type Clock, realClock } from '../../src/runtime/clock.ts'
import { returnQueuedTasks } from '../../src/store/tasks/at-broker/lost-publishes.ts'
import { claimedForBroker, claimForBroker, finishConfirmed } from '../../src/store/tasks/claim/claim-for-broker.ts'
import {
  claimFanOuts,
  openFanOuts,
  releaseCopies,
  returnFanOuts,
  sealPublished,
} from '../../src/store/tasks/family/fan-outs.ts'
import { exchangeVersion, readExchanges } from '../../src/store/tasks/insert/exchange-rows.ts'
import { readTopology } from '../../src/store/topology/topology.ts'
import { exchangeOfLine } from '../../src/task/topology/exchange.ts'
import type { ExchangeOrder } from '../../src/task/topology/topology.ts'
import type { routingBroker } from '../support/routing-broker.ts'
import { silent } from '../support/services.ts'
import type { TaskLedger } from '../support/tasks.ts'

const DEAF = { onMissing: () => {}, onRefused: () => {} }

/** Every pause of less than a second is over in the next turn. */
export const hasty: Clock = {
  now: () => performance.now(),
  after(ms, run) {
    if (ms >= 1_000) return realClock.after(ms, run)
    const timer = setImmediate(run)
    return () => clearImmediate(timer)
  },
}

/** mulberry32: the same walk for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** How often things go wrong, from 0 to 1. */
export interface Faults {
  /** The process is gone before, or after, any step that leaves it: a statement, a publish. */
  crash: number
  /** A statement fails, before or after it was committed. */
  statement: number
  /** The broker's answer to a message is not known: it has it, or not. */
  unknown: number
  /** Something else happens in between: `meanwhile`. */
  between: number
}

export const NO_FAULTS: Faults = { crash: 0, statement: 0, unknown: 0, between: 0 }

export interface ClusterNode {
  id: string
  alive(): boolean
  /** Declares what the rows say now. */
  refresh(): Promise<void>
  /** One claim of a queue, or an exchange's line, and its hand-over; ends when that has, or the node is gone. */
  dispatch(line: string): Promise<void>
}

/** A node that hands over through `broker`, by the real code and the real ledger, until a fault ends it. */
export async function startClusterNode(
  ledger: TaskLedger,
  { broker, control }: ReturnType<typeof routingBroker>,
  random: () => number,
  faults: Faults,
  /** `exchange`: a message to it is on its way. */
  meanwhile: (exchange?: string) => Promise<unknown> = async () => {},
): Promise<ClusterNode> {
  const { pool } = ledger
  const id = await ledger.join()
  const gone = new AbortController()
  const died = new Promise<void>((resolve) => gone.signal.addEventListener('abort', () => resolve()))
  const never = new Promise<never>(() => {})
  const numbers = createPublishNumbers()
  let told = 0
  let declared: ExchangeOrder[] = []

  /** The end of the process: what its last beat told of its publishes stays. */
  async function die(): Promise<never> {
    if (!gone.signal.aborted) {
      await pool.query('update nodes set dead_at = now(), confirmed = $2 where id = $1', [id, told])
      gone.abort()
    }
    return never
  }

  async function step<T>(work: () => Promise<T>): Promise<T> {
    if (gone.signal.aborted) return never
    if (random() < 0.3) told = numbers.confirmed()
    if (random() < faults.between) await meanwhile()
    if (random() < faults.crash) return die()
    if (random() < faults.statement) throw new Error('the connection was refused')
    const done = await work()
    if (random() < faults.crash) return die()
    if (random() < faults.statement) throw new Error('the connection was lost')
    return done
  }

  async function publish(messages: Message[]): Promise<PublishEnd[]> {
    if (gone.signal.aborted) return never
    if (random() < faults.between) await meanwhile(messages[0]?.exchange)
    const ends: PublishEnd[] = []
    for (const message of messages) {
      if (random() < faults.crash / 2) return die()
      const draw = random()
      if (draw < faults.unknown) ends.push('unknown')
      else {
        const end = control.deliver(message)
        ends.push(draw < 2 * faults.unknown ? 'unknown' : end)
      }
    }
    if (random() < faults.crash) return die()
    return ends
  }

  const look = {
    readExchange: (exchange: string, keys: string[]) =>
      step(async () => (await readExchanges(pool, [exchange], keys)).get(exchange)),
    exchangeVersion: (exchange: string) => step(() => exchangeVersion(pool, exchange)),
    declaredVersion: (exchange: string) => declared.find(({ name }) => name === exchange)?.version,
    isReady: () => true,
  }
  const common = { clock: hasty, log: silent, node: () => id, mayStart: () => true, numbers, ...DEAF }
  const lines = createFanOutHandOver({
    ...look,
    ...common,
    ledger: {
      claimFanOuts: (claim) => step(() => claimFanOuts(pool, { ...claim, limit: 3 })),
      releaseCopies: (ids) => step(() => releaseCopies(pool, ids)),
      sealPublished: (published) => step(() => sealPublished(pool, published)),
      returnFanOuts: (node, ids) => step(() => returnFanOuts(pool, node, ids)),
      openFanOuts: (exchange, limit) => step(() => openFanOuts(pool, exchange, limit)),
    },
    broker: { ...broker, publish } as Parameters<typeof createFanOutHandOver>[0]['broker'],
    wake: () => {},
  })
  const queues = createBrokerHandOver({
    ...common,
    ledger: {
      claimForBroker: (claim) => step(() => claimForBroker(pool, { ...claim, limit: 3 })),
      claimedForBroker: (claim) => step(() => claimedForBroker(pool, claim)),
      finishConfirmed: (node, no, ids) => step(() => finishConfirmed(pool, node, no, ids)),
      returnQueued: (ids) => step(() => returnQueuedTasks(pool, ids)),
    },
    broker,
    publish: createTaskPublisher({ ...look, broker: { publish }, log: silent, ...DEAF }),
    isReady: () => true,
    unreadyExchanges: () => [],
    endsByConfirm: () => false,
    window: () => 1_000,
    orderOf: () => 'due',
  })

  return {
    id,
    alive: () => !gone.signal.aborted,
    async refresh() {
      const { exchanges, bindings } = await readTopology(pool)
      for (const { exchange, queue, routingKey } of bindings) {
        control.unbind(exchange, queue, routingKey)
        control.bind(exchange, queue, routingKey)
      }
      declared = exchanges
    },
    async dispatch(line) {
      const handOver: HandOver = exchangeOfLine(line) === undefined ? queues : lines
      const work = async () => {
        await handOver.handOver(line, gone.signal)
        await queues.idle(2_000)
      }
      await Promise.race([work(), died])
    },
  }
}
