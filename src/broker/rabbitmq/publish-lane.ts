import type { AMQPChannel } from '@cloudamqp/amqp-client'
import { type Clock, pause } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Destination } from '../../task/topology/topology.ts'
import { destinationOf, type Message, type PublishEnd } from '../broker.ts'
import { backoffMs } from './connection/connector.ts'
import type { Link } from './connection/link.ts'
import { isOfExchange, isOfOneRequest, type Refusal, refusalOf } from './connection/refusal.ts'
import { createFlight } from './flight.ts'
import type { FrameWriter } from './frames.ts'
import { outgoing } from './message-form.ts'

/** One write to the socket is about so long, at most. */
const WRITE_BYTES = 256 * 1024

/** Refused messages are told so often at most. */
const REFUSAL_TOLD_MS = 10_000

/** What is not confirmed is sent again and again: where that was not seen for so many timeouts, nobody sends any more. */
const LATELY = 3

/** What all lanes share. */
export interface Road {
  link: Link | undefined
  /** The socket has more than it can send at once. */
  isBehind: boolean
  /** Why the broker takes no messages for now. */
  blocked: string | undefined
  /** For one write at a time. */
  writer: FrameWriter
}

export interface LaneOptions {
  road: Road
  /** Publishes in flight, at most. */
  window(): number
  clock: Clock
  log: Logger
  /** A publish without a confirm for so long ends `unknown`. */
  timeoutMs: number
  /** Whether an exchange is there: a publish to one that is not closes the channel, and costs the others their confirms. */
  exchangeExists(name: string): Promise<boolean>
}

/**
 * Publishes with confirms, on one channel of whatever link there is, what goes to one queue or exchange. RabbitMQ works through
 * a channel in order, and stands still there for a queue that has lost its majority: the others are not to wait with it.
 */
export interface PublishLane {
  /** As `Broker.publish`. */
  publish(messages: Message[]): Promise<PublishEnd[]>
  /** The road has changed. */
  wake(): void
  /** Exchanges may have come or gone. */
  forgetExchanges(): void
  /** Where messages went that were not confirmed for longer than a publish may take, when none has been since. */
  stuck(): Destination | undefined
  /** Ends whatever waits as `unknown`. */
  close(): void
}

/** One call of publish. */
interface Batch {
  messages: Message[]
  ends: PublishEnd[]
  /** The first that is not sent. */
  next: number
  /** How many have not ended. */
  open: number
  since: number
  resolve(ends: PublishEnd[]): void
}

interface Session {
  link: Link
  channel: AMQPChannel
}

export function createPublishLane({ road, window, clock, log, timeoutMs, exchangeExists }: LaneOptions): PublishLane {
  const waiting: Batch[] = []
  const exchanges = new Set<string>([''])
  let session: Session | undefined
  let flight = createFlight()
  let isOpening = false
  /** What was not confirmed since the last one that was: the first, and when that was seen again. */
  let failing: { to: Destination; since: number; seenAt: number } | undefined
  /** While it is above 0, one at a time: one of so many got the channel closed. */
  let careful = 0
  let checking = false
  let scheduled = false
  let movedAt = clock.now()
  let stopSweep: (() => void) | undefined
  let failures = 0
  let refusalToldAt = Number.NEGATIVE_INFINITY
  const closing = new AbortController()

  function end(batch: Batch, index: number, how: PublishEnd): void {
    batch.ends[index] = how
    batch.open--
    if (batch.open === 0) batch.resolve(batch.ends)
  }

  function note(message: Message, since: number, how: PublishEnd): void {
    if (how !== 'unknown') failing = undefined
    else if (road.blocked === undefined)
      failing = { to: destinationOf(message), since, ...failing, seenAt: clock.now() }
  }

  /** Sends what may be sent, once all of this turn has been said. */
  function schedule(): void {
    if (scheduled) return
    scheduled = true
    queueMicrotask(() => {
      scheduled = false
      send()
    })
  }

  function send(): void {
    const { link, writer } = road
    if (waiting.length === 0 || road.blocked !== undefined || !link || link.isOver) return
    if (session?.link !== link) {
      void open(link)
      return
    }
    while (!road.isBehind && !checking && waiting.length > 0) {
      const room = (careful > 0 ? 1 : window()) - flight.size
      if (room <= 0) return
      fill(session.channel, room)
      if (writer.length > 0) road.isBehind = !link.write(writer.take())
    }
  }

  function fill(channel: AMQPChannel, room: number): void {
    const sentAt = clock.now()
    for (let batch = waiting[0]; batch && room > 0 && road.writer.length < WRITE_BYTES; batch = waiting[0]) {
      const index = batch.next
      const message = batch.messages[index] as Message
      if (!exchanges.has(message.exchange)) {
        check(message.exchange)
        return
      }
      batch.next++
      if (batch.next === batch.messages.length) waiting.shift()
      if (write(channel, message)) {
        const ended = (how: PublishEnd) => {
          note(message, sentAt, how)
          end(batch, index, how)
        }
        flight.sent({ message, sentAt, returned: false, over: false, end: ended })
        room--
      } else {
        end(batch, index, 'returned')
      }
    }
  }

  function write(channel: AMQPChannel, message: Message): boolean {
    try {
      road.writer.publish(channel.id, outgoing(message), channel.connection.frameMax)
      return true
    } catch (error) {
      refused(message, messageOf(error))
      return false
    }
  }

  function refused({ exchange, routingKey, properties }: Message, reason: string): void {
    const fields = { exchange, routingKey, messageId: properties.messageId, reason }
    const level = clock.now() - refusalToldAt < REFUSAL_TOLD_MS ? 'debug' : 'warn'
    if (level === 'warn') refusalToldAt = clock.now()
    log[level]({ event: 'publish-refused', ...fields }, `RabbitMQ does not take a message: ${reason}`)
  }

  /** The rest waits for the answer, so that the order is kept. */
  function check(exchange: string): void {
    checking = true
    void exchangeExists(exchange)
      // Not known: it is sent and seen.
      .catch(() => true)
      .then((exists) => {
        checking = false
        if (exists) exchanges.add(exchange)
        else endNextTo(exchange, 'returned')
        schedule()
      })
  }

  /** Ends what is next and goes to an exchange that takes nothing. */
  function endNextTo(exchange: string, how: PublishEnd): void {
    for (let batch = waiting[0]; batch; batch = waiting[0]) {
      const index = batch.next
      if (batch.messages[index]?.exchange !== exchange) return
      batch.next++
      if (batch.next === batch.messages.length) waiting.shift()
      end(batch, index, how)
    }
  }

  function confirmed(tag: number, multiple: boolean, nack: boolean): void {
    const count = flight.confirm(tag, multiple, !nack)
    careful = Math.max(0, careful - count)
    movedAt = clock.now()
    schedule()
  }

  /** Ends what was waited for too long. While confirms come in, what is not sent yet is only in line. */
  function sweep(): void {
    const due = clock.now() - timeoutMs
    for (const one of flight.all()) {
      if (one.sentAt > due) break
      if (!one.over) one.end('unknown')
      one.over = true
    }
    while (movedAt <= due && waiting[0] && waiting[0].since <= due) endUnsent(waiting.shift() as Batch)
    stopSweep = undefined
    armSweep()
  }

  function endUnsent(batch: Batch): void {
    const { next, messages } = batch
    batch.next = messages.length
    for (let index = next; index < messages.length; index++) end(batch, index, 'unknown')
  }

  function armSweep(): void {
    if (stopSweep || closing.signal.aborted || (flight.size === 0 && waiting.length === 0)) return
    stopSweep = clock.after(timeoutMs / 8, sweep)
  }

  function landAll(refusal?: Refusal): void {
    const flown = [...flight.all()].filter((one) => !one.over)
    flight = createFlight()
    const [only] = flown
    let how: PublishEnd = 'unknown'
    if (refusal && isOfOneRequest(refusal)) {
      if (flown.length === 1 && only) {
        const { message } = only
        refused(message, refusal.text)
        how = isOfExchange(refusal) ? 'refused' : 'returned'
        if (how === 'refused') endNextTo(message.exchange, how)
      } else {
        careful = flown.length
      }
    }
    for (const one of flown) one.end(one.returned ? 'returned' : how)
  }

  async function open(link: Link): Promise<void> {
    if (isOpening) return
    isOpening = true
    try {
      const channel = await link.channel()
      await link.ask(channel.confirmSelect())
      const opened = { link, channel }
      channel.publishConfirmed = confirmed
      channel.onReturn = (message) => flight.returned(message)
      channel.onerror = (reason) => lost(opened, reason)
      session = opened
      failures = 0
    } catch (error) {
      if (!link.isOver) log.warn({ event: 'publish-channel-failed', reason: messageOf(error) })
      await pause(clock, backoffMs(failures++), closing.signal)
    } finally {
      isOpening = false
      schedule()
    }
  }

  /** The channel is gone, alone or with its link. */
  function lost(from: Session, reason: string): void {
    if (session !== from) return
    session = undefined
    forgetExchanges()
    landAll(refusalOf(reason))
    failing = undefined
    schedule()
  }

  function forgetExchanges(): void {
    exchanges.clear()
    // The default one is always there.
    exchanges.add('')
  }

  return {
    publish(messages) {
      if (messages.length === 0) return Promise.resolve([])
      if (closing.signal.aborted) return Promise.resolve(messages.map(() => 'unknown' as const))
      return new Promise((resolve) => {
        const ends: PublishEnd[] = new Array(messages.length).fill('unknown')
        waiting.push({ messages, ends, next: 0, open: messages.length, since: clock.now(), resolve })
        schedule()
        armSweep()
      })
    },
    wake: schedule,
    stuck() {
      if (!failing) return undefined
      const { to, since, seenAt } = failing
      const now = clock.now()
      return now - since >= timeoutMs && now - seenAt < LATELY * timeoutMs ? to : undefined
    },
    forgetExchanges,
    close() {
      closing.abort()
      stopSweep?.()
      session = undefined
      landAll()
      for (const batch of waiting.splice(0)) endUnsent(batch)
    },
  }
}
