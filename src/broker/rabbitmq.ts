import { parseAmqpUrl } from '../runtime/amqp-url.ts'
import { type Clock, within } from '../runtime/clock.ts'
import type { Logger } from '../runtime/log.ts'
import type { Service } from '../runtime/service.ts'
import type { BrokerState } from '../task/ledger.ts'
import type { Broker } from './broker.ts'
import { createConnector } from './rabbitmq/connection/connector.ts'
import { type Asking, asking, NoAnswer } from './rabbitmq/connection/short-lived-channel.ts'
import { makeTopology, takeInventory } from './rabbitmq/declaration.ts'
import { countIn, countSurely, exchangeExists, purge, remove } from './rabbitmq/inspection.ts'
import { createPublisher } from './rabbitmq/publisher.ts'
import { type StandingSubscription, startSubscription } from './rabbitmq/subscription.ts'

export interface RabbitMqOptions {
  /** amqp or amqps; hosts of one cluster, tried in turn. */
  urls: readonly string[]
  /** Certificates (PEM) that an amqps server is checked against, in place of the public ones. */
  ca?: string | undefined
  /** Shown by RabbitMQ for our connections. */
  name: string
  clock: Clock
  log: Logger
  /** A link that is silent for twice as long is dead; 20 by default. */
  heartbeatSeconds?: number
  /** A publish without a confirm for so long ends `unknown`; 10,000 by default. */
  publishTimeoutMs?: number
}

/** How often a request is made while the connection ends under it. */
const MOST_TRIES = 3
/** A connection that is not back within this time is an outage. */
const BACK_WITHIN_MS = 5_000

/**
 * RabbitMQ behind the port. `start` does not wait for it: it is looked for until it is there, and again whenever it is lost.
 * `stop` ends subscriptions (what is unsettled goes back), publishes (`unknown`) and connections.
 */
export function createRabbitMqBroker(options: RabbitMqOptions): Broker & Service {
  const { clock, log, name, heartbeatSeconds = 20, publishTimeoutMs = 10_000 } = options
  const addresses = options.urls.map(parseAmqpUrl)
  const listeners: ((queue: string | undefined) => void)[] = []
  const lossListeners: ((queue: string) => void)[] = []
  const subscriptions = new Set<StandingSubscription>()
  let since = new Date().toISOString()
  let status: BrokerState['status'] = 'down'

  const publisher = createPublisher({
    clock,
    log,
    timeoutMs: publishTimeoutMs,
    exchangeExists: (exchange) => withChannel((on) => exchangeExists(on, exchange)),
    onBlocked(reason) {
      if (reason !== undefined) log.warn({ event: 'broker-blocked', reason }, `RabbitMQ takes no messages: ${reason}`)
      else log.info({ event: 'broker-unblocked' }, 'RabbitMQ takes messages again')
      changed()
    },
  })
  const links = { addresses, ca: options.ca, heartbeatSeconds, clock, log }
  const publishing = createConnector({
    ...links,
    purpose: 'publish',
    name: `${name} publish`,
    prepare: publisher.attach,
    onChange() {
      if (publishing.link()) consuming.retry()
      changed()
    },
  })
  const consuming = createConnector({
    ...links,
    purpose: 'consume',
    name: `${name} consume`,
    prepare: () => {},
    onChange() {
      if (consuming.link()) publishing.retry()
      for (const subscription of subscriptions) subscription.retry()
      changed()
    },
  })

  function statusNow(): BrokerState['status'] {
    if (!publishing.link() || !consuming.link()) return 'down'
    return publisher.blocked() === undefined ? 'up' : 'blocked'
  }

  function reasonNow(): string | null {
    const isDown = publishing.reason() ?? consuming.reason()
    if (isDown !== null) return isDown
    if (statusNow() === 'down') return 'there is no connection to the broker yet'
    const blocked = publisher.blocked()
    if (blocked !== undefined) return `the broker takes no messages: ${blocked}`
    const [stuck] = publisher.stuck()
    if (stuck)
      return `the broker does not confirm messages to the ${stuck.kind} "${stuck.name}" (has it lost its majority, or is it full?)`
    for (const subscription of subscriptions) {
      const failure = subscription.failure()
      if (failure !== undefined) return failure
    }
    return null
  }

  function changed(): void {
    const now = statusNow()
    if (now !== status) since = new Date().toISOString()
    status = now
    for (const listener of listeners) listener(undefined)
  }

  /** Not where we publish: while an alarm blocks that connection, RabbitMQ reads nothing there. */
  const withChannel = <T>(work: (on: Asking) => Promise<T>) => asking(consuming.link(), consuming.reason(), work)

  /**
   * For what may be done twice. RabbitMQ ends a connection for the trouble of any channel on it (a consumer that comes to a
   * quorum queue while that is being deleted crashes its channel, 541): what was being done begins anew on the next one.
   */
  async function withAnyChannel<T>(work: (on: Asking) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const link = consuming.link()
      try {
        return await withChannel(work)
      } catch (error) {
        if (!link || !(error instanceof NoAnswer) || tries === MOST_TRIES) throw error
        if ((await within(clock, BACK_WITHIN_MS, consuming.linkAfter(link), 'late')) === 'late') throw error
      }
    }
  }

  return {
    kind: 'rabbitmq',
    async start() {
      publishing.start()
      consuming.start()
    },
    async stop() {
      publisher.close()
      const leaving = [...subscriptions]
      for (const subscription of leaving) {
        subscription.cancel()
        subscription.flush()
      }
      await Promise.all([publishing.stop(), consuming.stop()])
      await Promise.all(leaving.map(({ over }) => over))
    },

    state() {
      const unconfirmed = publisher.stuck()
      return {
        status: statusNow(),
        since,
        reason: reasonNow(),
        ...(unconfirmed.length > 0 && { unconfirmed }),
        connections: [
          { purpose: 'publish' as const, connector: publishing },
          { purpose: 'consume' as const, connector: consuming },
        ].flatMap(({ purpose, connector }) => {
          const link = connector.link()
          return link ? { name: `${name} ${purpose}`, host: link.host, purpose, since: link.since } : []
        }),
      }
    },

    publish: publisher.publish,
    room: () => (statusNow() === 'up' ? Number.POSITIVE_INFINITY : 0),

    consume(queue, prefetch, handler) {
      const subscription = startSubscription({
        ...{ queue, prefetch, handler, clock, log },
        link: consuming.link,
        onChange() {
          changed()
          if (subscription.failure() !== undefined) for (const listener of lossListeners) listener(queue)
        },
      })
      subscriptions.add(subscription)
      void subscription.over.then(() => subscriptions.delete(subscription))
      return subscription
    },

    async declare(topology, beforeMaking) {
      return withChannel(async (on) => {
        const { queues, wiped } = await takeInventory(on, topology)
        const missing = [...queues].flatMap(([queue, found]) => (found === 'missing' ? queue : []))
        await beforeMaking?.({ missing, wiped })
        const conflicts = await makeTopology(on, topology, { queues, wiped }, consuming.link()?.version ?? '')
        publisher.declared(topology.queues)
        for (const subscription of subscriptions)
          if (missing.includes(subscription.queue)) subscription.renew()
          else subscription.retry()
        return { missing, conflicts, wiped }
      })
    },
    remove: (removal) => withAnyChannel((on) => remove(on, removal)),
    inspect: (queue, { purge: purging = false, surely = false } = {}) =>
      withAnyChannel(async (on) => {
        if (purging) await purge(on, queue)
        return surely ? (await countSurely(on, [queue]))[0] : countIn(on, queue)
      }),

    onChange: (listener) => void listeners.push(listener),
    onLost: (listener) => void lossListeners.push(listener),
  }
}
