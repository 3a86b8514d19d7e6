import type { Clock } from '../../runtime/clock.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Destination } from '../../task/topology/topology.ts'
import { type BrokerQueue, destinationOf, type Message, type PublishEnd } from '../broker.ts'
import type { Link } from './connection/link.ts'
import { createFrameWriter } from './frames.ts'
import { createPublishLane, type PublishLane, type Road } from './publish-lane.ts'

/**
 * Publishes in flight on one channel, at most. RabbitMQ stops reading from a whole connection when 400 messages are before a
 * channel that stands still (credit_flow_default_credit), as one does for a quorum queue that has lost its majority.
 */
const WINDOW = 380
/** Classic queues have no majority to lose, and confirm faster the more there is to write at once. */
const CLASSIC_WINDOW = 1_000

/** Destinations that have a lane of their own; more share. */
const LANES = 64

export interface PublisherOptions {
  clock: Clock
  log: Logger
  /** A publish without a confirm for so long ends `unknown`. */
  timeoutMs: number
  /** Whether an exchange is there: a publish to one that is not closes its channel. */
  exchangeExists(name: string): Promise<boolean>
  /** The broker takes no messages for now, for that reason, or takes them again. */
  onBlocked(reason: string | undefined): void
}

/** Publishes with confirms on whatever link there is, in the order given for each queue and exchange. */
export interface Publisher {
  /** As `Broker.publish`. */
  publish(messages: Message[]): Promise<PublishEnd[]>
  /** Uses this link until it ends. */
  attach(link: Link): void
  /** Why the broker takes no messages for now; undefined when it does. */
  blocked(): string | undefined
  /** Where messages are not confirmed. */
  stuck(): Destination[]
  /** These queues are there, of these types; exchanges may have come or gone. */
  declared(queues: readonly BrokerQueue[]): void
  /** Ends whatever waits as `unknown`. */
  close(): void
}

export function createPublisher({ clock, log, timeoutMs, exchangeExists, onBlocked }: PublisherOptions): Publisher {
  const lanes: PublishLane[] = []
  const laneOfKey = new Map<string, PublishLane>()
  const road: Road = { link: undefined, isBehind: false, blocked: undefined, writer: createFrameWriter() }

  const classic = new Set<string>()
  const windowOf = (key: string) => (classic.has(key) ? CLASSIC_WINDOW : WINDOW)

  function wakeAll(): void {
    for (const lane of lanes) lane.wake()
  }

  function laneOf(message: Message): PublishLane {
    const key = keyOf(destinationOf(message))
    const known = laneOfKey.get(key)
    if (known) return known
    const isNew = lanes.length < LANES
    const lane = isNew
      ? createPublishLane({ road, window: () => windowOf(key), clock, log, timeoutMs, exchangeExists })
      : (lanes[sumOf(key) % LANES] as PublishLane)
    if (isNew) {
      lanes.push(lane)
      laneOfKey.set(key, lane)
    }
    return lane
  }

  return {
    async publish(messages) {
      const places = Map.groupBy(messages.keys(), (index) => laneOf(messages[index] as Message))
      const [only] = places.keys()
      if (places.size === 1 && only) return only.publish(messages)
      const ends: PublishEnd[] = new Array(messages.length)
      await Promise.all(
        [...places].map(async ([lane, indexes]) => {
          const own = await lane.publish(indexes.map((index) => messages[index] as Message))
          for (const [at, index] of indexes.entries()) ends[index] = own[at] as PublishEnd
        }),
      )
      return ends
    },
    attach(link) {
      Object.assign(road, { link, isBehind: false, blocked: undefined })
      link.onDrain(() => {
        if (road.link !== link) return
        road.isBehind = false
        wakeAll()
      })
      link.onBlocked((reason) => {
        if (road.link !== link) return
        road.blocked = reason
        onBlocked(reason)
        wakeAll()
      })
      wakeAll()
    },
    blocked: () => road.blocked,
    stuck: () => lanes.flatMap((lane) => lane.stuck() ?? []),
    declared(queues) {
      for (const { name, type } of queues) {
        if (type === 'classic') classic.add(keyOf({ kind: 'queue', name }))
        else classic.delete(keyOf({ kind: 'queue', name }))
      }
      for (const lane of lanes) lane.forgetExchanges()
    },
    close() {
      for (const lane of lanes) lane.close()
    },
  }
}

const keyOf = ({ kind, name }: Destination) => `${kind} ${name}`

const sumOf = (text: string) => [...text].reduce((sum, character) => sum + (character.codePointAt(0) ?? 0), 0)
