import { createDispatcher, type Dispatcher, type HandOver } from '../../dispatch/dispatcher.ts'
import type { ExchangeLookDeps } from '../../dispatch/exchange-look.ts'
import { createFanOutHandOver, createFanOutOpener, type FanOutDeps } from '../../dispatch/fan-out.ts'
import type { Refusals } from '../../dispatch/refusals.ts'
import {
  claimFanOuts,
  fanOutLines,
  openFanOuts,
  releaseCopies,
  returnFanOuts,
  sealPublished,
} from '../../store/tasks/family/fan-outs.ts'
import { exchangeVersion, readExchanges } from '../../store/tasks/insert/exchange-rows.ts'
import { exchangeOfLine, lineOf } from '../../task/topology/exchange.ts'
import type { DispatchingDeps } from './dispatching.ts'

/** What exchanges are, by their rows and by what this node has declared and may publish to. */
export function exchangeLook(
  { database: { pool }, registry, reconciler }: Pick<DispatchingDeps, 'database' | 'registry' | 'reconciler'>,
  refusals: Pick<Refusals, 'has'>,
): ExchangeLookDeps {
  return {
    readExchange: async (exchange, keys) => (await readExchanges(pool, [exchange], keys)).get(exchange),
    exchangeVersion: (exchange) => exchangeVersion(pool, exchange),
    declaredVersion(name) {
      return reconciler.isExchangeReady(name) && !refusals.has({ kind: 'exchange', name })
        ? registry.exchanges().find((one) => one.name === name)?.version
        : undefined
    },
    isReady: (queue) => reconciler.isReady(queue),
  }
}

/** The dispatcher of `queues` and, beside it, what publishes that which is addressed to exchanges. */
export function withFanOuts(
  queues: Dispatcher,
  deps: DispatchingDeps,
  common: ExchangeLookDeps & Pick<FanOutDeps, 'numbers' | 'onMissing' | 'onRefused'>,
): Dispatcher {
  const { database, broker, clock, log, hands, touched } = deps
  const { pool } = database
  const mayStart = () => hands.heart.mayStart()
  const told = async <T>(ids: string[], written: Promise<T>): Promise<T> => {
    const answer = await written
    touched(ids)
    return answer
  }
  const handOver = createFanOutHandOver({
    ...common,
    ledger: {
      async claimFanOuts(claim) {
        const parents = await claimFanOuts(pool, claim)
        touched(parents.map(({ id }) => id))
        return parents
      },
      releaseCopies: (ids) => told(ids, releaseCopies(pool, ids)),
      sealPublished: (published) => told(published.ids, sealPublished(pool, published)),
      returnFanOuts: (node, ids) => told(ids, returnFanOuts(pool, node, ids)),
      openFanOuts: (exchange, limit) => openFanOuts(pool, exchange, limit),
    },
    broker,
    clock,
    log,
    node: () => hands.heart.node(),
    mayStart,
    wake: (queue) => queues.wake(queue),
  })
  return beside(queues, handOver, deps, mayStart)
}

/** As `withFanOuts`, in-process: nothing is published. */
export function withOpenedFanOuts(queues: Dispatcher, deps: DispatchingDeps): Dispatcher {
  const { pool } = deps.database
  const handOver = createFanOutOpener({
    openFanOuts: (exchange, limit) => openFanOuts(pool, exchange, limit),
    wake: (queue) => queues.wake(queue),
  })
  return beside(queues, handOver, deps, () => deps.hands.heart.mayStart())
}

function beside(
  queues: Dispatcher,
  handOver: HandOver,
  { database, clock, log, registry }: DispatchingDeps,
  mayStart: () => boolean,
): Dispatcher {
  const lines = createDispatcher({
    poll: {
      name: 'fan-out-poll',
      description: 'Looks which exchanges have something to be published; signals are faster, this is behind them',
    },
    handOver,
    clock,
    log,
    mayStart,
    async nextDue(_, withinMs) {
      const found = await fanOutLines(database.pool, withinMs)
      return new Map(found.map(({ exchange, ms }) => [lineOf(exchange), ms]))
    },
    // One more than there are: what was addressed to an exchange that is gone is looked for when there is none.
    dispatchedQueues: () => [lineOf(''), ...registry.exchanges().map(({ name }) => lineOf(name))],
  })
  return {
    periodic: [...(queues.periodic ?? []), ...(lines.periodic ?? [])],
    wake: (queue, delayMs) => (exchangeOfLine(queue) === undefined ? queues : lines).wake(queue, delayMs),
    async start() {
      await Promise.all([queues.start(), lines.start()])
    },
    async stop() {
      await Promise.all([queues.stop(), lines.stop()])
    },
  }
}
