import type { BrokerAddress } from '../../../runtime/amqp-url.ts'
import { type Clock, pause } from '../../../runtime/clock.ts'
import { messageOf } from '../../../runtime/errors.ts'
import type { Logger } from '../../../runtime/log.ts'
import { type Link, openLink } from './link.ts'

const SHORTEST_MS = 200
const LONGEST_MS = 10_000
/** A link that held so long is no reason to be slow with the next one. */
const STEADY_MS = 10_000

/** The pause before try `attempt` (from 0): anything up to a bound that doubles, so that many nodes do not come at once. */
export const backoffMs = (attempt: number, random = Math.random()): number => {
  const bound = Math.min(LONGEST_MS, SHORTEST_MS * 2 ** Math.min(attempt, 16))
  return SHORTEST_MS / 2 + random * (bound - SHORTEST_MS / 2)
}

export interface ConnectorOptions {
  /** Tried in turn. */
  addresses: readonly BrokerAddress[]
  purpose: 'publish' | 'consume'
  /** Of the connection, at the broker. */
  name: string
  ca?: string | undefined
  heartbeatSeconds: number
  clock: Clock
  log: Logger
  /** Takes a new link into use. */
  prepare(link: Link): void
  /** The link is there, or is gone. */
  onChange(): void
}

/** Keeps one connection up. */
export interface Connector {
  /** The link that is ready for use. */
  link(): Link | undefined
  /** Resolves when there is another link than this one, which is gone or about to be. */
  linkAfter(gone: Link): Promise<void>
  /** Why there is none; null while there is one, and before the first try. */
  reason(): string | null
  start(): void
  /** Tries at once, if there is no link: the broker was just seen. */
  retry(): void
  /** Closes the link and tries no more. */
  stop(): Promise<void>
}

export function createConnector(options: ConnectorOptions): Connector {
  const { addresses, purpose, clock, log, prepare, onChange } = options
  const stopping = new AbortController()
  let current: Link | undefined
  const awaiting: (() => void)[] = []
  let reason: string | null = null
  let told: string | undefined
  let next = 0
  let waiting = new AbortController()
  let working = Promise.resolve()

  /** One link from its opening to its end; true when it held for a while. */
  async function live(address: BrokerAddress): Promise<boolean> {
    let link: Link | undefined
    const began = clock.now()
    try {
      link = await openLink({ ...options, address, signal: stopping.signal })
      prepare(link)
      current = link
      for (const resume of awaiting.splice(0)) resume()
      reason = null
      told = undefined
      onChange()
      log.info({ event: 'broker-up', purpose, host: link.host }, `RabbitMQ at ${link.host} is connected to ${purpose}`)
      reason = await link.ended
    } catch (error) {
      reason = messageOf(error)
    } finally {
      current = undefined
      await link?.close()
    }
    if (stopping.signal.aborted) return false
    // The same again and again is no news.
    const level = reason === told ? 'debug' : 'warn'
    told = reason
    log[level]({ event: 'broker-down', purpose, reason }, `No connection to ${purpose}: ${reason}`)
    onChange()
    return clock.now() - began >= STEADY_MS
  }

  async function work(): Promise<void> {
    let failures = 0
    while (!stopping.signal.aborted) {
      const steady = await live(addresses[next % addresses.length] as BrokerAddress)
      next++
      if (stopping.signal.aborted) return
      failures = steady ? 1 : failures + 1
      // Every host once without a pause.
      if (failures % addresses.length !== 0) continue
      waiting = new AbortController()
      await pause(clock, backoffMs(failures / addresses.length - 1), waiting.signal)
    }
  }

  return {
    link: () => current,
    async linkAfter(gone) {
      if (!current || current === gone) await new Promise<void>((resolve) => awaiting.push(resolve))
    },
    reason: () => reason,
    start() {
      working = work()
    },
    retry: () => waiting.abort(),
    async stop() {
      stopping.abort()
      waiting.abort()
      await current?.close()
      await working
    },
  }
}
