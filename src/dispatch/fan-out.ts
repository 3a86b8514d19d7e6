import type { Broker, PublishEnd } from '../broker/broker.ts'
import { fanOutMessage } from '../broker/wire-form.ts'
import { pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { FanOut, FanOutClaim, Published } from '../store/tasks/family/fan-outs.ts'
import { exchangeOfLine } from '../task/topology/exchange.ts'
import type { Destination } from '../task/topology/topology.ts'
import type { HandOver } from './dispatcher.ts'
import { type ExchangeLookDeps, lookAtExchange } from './exchange-look.ts'
import { type KnownClaimDeps, knownClaim } from './known-claim.ts'
import type { PublishNumbers } from './publish-numbers.ts'

/** Parents that are not to be published: they are sealed, and their children wait in their queues. */
export interface OpenFanOuts {
  openFanOuts(exchange: string, limit: number): Promise<{ queues: string[]; more: boolean }>
}

/** What it needs of the ledger. */
export interface FanOutLedger extends OpenFanOuts {
  /** Takes due parents of an exchange; the same claim again gives the same ones. */
  claimFanOuts(claim: FanOutClaim): Promise<FanOut[]>
  /** Lets children go by themselves whose copies will not come; gives their queues. */
  releaseCopies(ids: string[]): Promise<string[]>
  /** Seals parents whose publish is confirmed; gives the queues that have work. */
  sealPublished(published: Published): Promise<string[]>
  /** Puts parents back in line whose publish came to nothing, or may have. */
  returnFanOuts(node: string, ids: string[]): Promise<void>
}

export interface FanOutDeps extends KnownClaimDeps, ExchangeLookDeps {
  ledger: FanOutLedger
  broker: Broker
  node(): string
  numbers: PublishNumbers
  /** Says that a queue has work. */
  wake(queue: string): void
  /** Says that the broker does not route to a queue as it was told to. */
  onMissing(queue: string): void
  /** Says that the broker does not let this node publish there. */
  onRefused(destination: Destination): void
}

const MAX_CLAIM = 500
const RETRY_MS = 250
/** How soon to look again whether an exchange may be published to, and how seldom when it stays so. */
const UNDECLARED_MS = 50
const SLOWEST_MS = 2_000
const OPEN_AT_ONCE = 200

/**
 * Hands over what stands in the lines of exchanges: one message a parent, through the real exchange, outside of any window
 * (PROTOCOL 21). A parent is sealed when that is confirmed, and published again while it is not known.
 */
export function createFanOutHandOver(deps: FanOutDeps): HandOver {
  const { ledger, broker, clock, log } = deps
  /** What had work lately, for when the broker comes back. */
  const lines = new Set<string>()
  const paces = new Map<string, number>()

  /** Calls the ledger until it answers; undefined when `signal` aborts before. */
  async function known<T>(exchange: string, signal: AbortSignal, call: () => Promise<T>): Promise<T | undefined> {
    while (!signal.aborted) {
      try {
        return await call()
      } catch (error) {
        log.warn({ event: 'fan-out-not-stored', exchange, error: messageOf(error) }, 'Cannot store; trying again')
        await pause(clock, RETRY_MS, signal)
      }
    }
    return undefined
  }

  const wake = (queues: string[]) => {
    for (const queue of queues) deps.wake(queue)
  }

  /** Publishes claimed parents and stores what came of it. False: not all of it is known, or stored. */
  async function publish(exchange: string, node: string, parents: FanOut[], signal: AbortSignal): Promise<boolean> {
    const keys = parents.map(({ routingKey }) => routingKey)
    const look = await known(exchange, signal, () => lookAtExchange(deps, exchange, keys))
    if (look === undefined) return false
    if (typeof look === 'string') {
      const ids = parents.map(({ id }) => id)
      return (await known(exchange, signal, () => stored(ledger.returnFanOuts(node, ids)))) ?? false
    }
    const unreached = parents.flatMap(({ copies, routingKey }) =>
      copies.filter(({ queue }) => !look.reaches(queue, routingKey)).map(({ id }) => id),
    )
    if (unreached.length > 0) wake((await known(exchange, signal, () => ledger.releaseCopies(unreached))) ?? [])
    if (signal.aborted) return false
    const ends = await broker.publish(parents.map((one) => fanOutMessage(one, exchange, one.routingKey)))
    const ended = (end: PublishEnd) => parents.filter((_, index) => (ends[index] ?? 'unknown') === end)
    const idsOf = (end: PublishEnd) => ended(end).map(({ id }) => id)
    const missing = new Set(ended('returned').flatMap(({ copies }) => copies.map(({ queue }) => queue)))
    const sealed = await known(exchange, signal, async () => {
      const seal = (ids: string[], version: string | undefined) =>
        ids.length > 0 ? ledger.sealPublished({ node, exchange, ids, version }) : []
      const queues = [...(await seal(idsOf('confirmed'), look.version)), ...(await seal(idsOf('returned'), undefined))]
      const back = [...idsOf('unknown'), ...idsOf('refused')]
      if (back.length > 0) await ledger.returnFanOuts(node, back)
      return queues
    })
    wake(sealed ?? [])
    for (const queue of missing) deps.onMissing(queue)
    if (ended('refused').length > 0) deps.onRefused({ kind: 'exchange', name: exchange })
    return sealed !== undefined && ended('unknown').length === 0 && ended('refused').length === 0
  }

  return {
    onRoom(listener) {
      broker.onChange((queue) => {
        if (queue === undefined) for (const line of lines) listener(line)
      })
    },

    room(line) {
      if (!exchangeOfLine(line)) return 0
      lines.add(line)
      return broker.state().status === 'up' ? MAX_CLAIM : 0
    },

    async handOver(line, signal) {
      const exchange = exchangeOfLine(line) ?? ''
      const before = await known(exchange, signal, () => lookAtExchange(deps, exchange, ['']))
      if (before === 'gone') return open(deps, exchange)
      if (before === 'undeclared') {
        const pace = Math.min(SLOWEST_MS, 2 * (paces.get(line) ?? UNDECLARED_MS / 2))
        paces.set(line, pace)
        return pace
      }
      paces.delete(line)
      const [node, publishNo] = [deps.node(), deps.numbers.begin()]
      const claim = () => ledger.claimFanOuts({ exchange, node, publishNo, limit: MAX_CLAIM })
      const parents = await knownClaim(deps, line, signal, { once: claim, taken: claim, nothing: [] })
      const done = parents.length === 0 || (await publish(exchange, node, parents, signal))
      // What is not stored stays with this number, for others to find should this node be gone.
      if (!signal.aborted) deps.numbers.end(publishNo)
      if (!done) return RETRY_MS
      return parents.length === MAX_CLAIM ? 'more' : 'drained'
    },
  }
}

/** Without a broker beside the process nothing is published: what an exchange's line holds is from before, or was replayed. */
export function createFanOutOpener(deps: OpenFanOuts & Pick<FanOutDeps, 'wake'>): HandOver {
  return {
    onRoom: () => {},
    room: (line) => (exchangeOfLine(line) ? OPEN_AT_ONCE : 0),
    handOver: (line) => open({ ledger: deps, wake: deps.wake }, exchangeOfLine(line) ?? ''),
  }
}

async function open(
  { ledger, wake }: { ledger: OpenFanOuts; wake(queue: string): void },
  exchange: string,
): Promise<'more' | 'drained'> {
  const { queues, more } = await ledger.openFanOuts(exchange, OPEN_AT_ONCE)
  for (const queue of queues) wake(queue)
  return more ? 'more' : 'drained'
}

async function stored(writing: Promise<void>): Promise<false> {
  await writing
  return false
}
