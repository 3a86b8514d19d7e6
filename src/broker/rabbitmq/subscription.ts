import type { AMQPChannel } from '@cloudamqp/amqp-client'
import { type Clock, pause } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Delivery, DeliveryEnd, DeliveryHandler, Subscription } from '../broker.ts'
import { type Acknowledger, createAcknowledger } from './acknowledger.ts'
import { backoffMs } from './connection/connector.ts'
import type { Link } from './connection/link.ts'
import { refusalOf } from './connection/refusal.ts'
import { incoming } from './message-form.ts'

/** Deliveries of one batch, at most. */
const BATCH = 500
/** What AMQP has room for. */
const MAX_PREFETCH = 65_535

export interface SubscriptionOptions {
  queue: string
  prefetch: number
  handler: DeliveryHandler
  clock: Clock
  log: Logger
  /** The link that is up now. */
  link(): Link | undefined
  /** Its `failure` is another one. */
  onChange(): void
}

/** A standing order for deliveries, whatever becomes of consumers, channels and links. */
export interface StandingSubscription extends Subscription {
  /** Why it gets nothing although there is a link, in a sentence; undefined when it does. */
  failure(): string | undefined
  /** Tells the ends that are not told yet. */
  flush(): void
  readonly queue: string
  /** There is another link, or the queue may be there again. */
  retry(): void
  /** The queue was made anew. RabbitMQ cancels consumers of the old one, but not for one that had no leader. */
  renew(): void
  /** Resolves when it is cancelled and everything is told. */
  readonly over: Promise<void>
}

/** A channel with at most one consumer on it. */
interface Session {
  link: Link
  channel: AMQPChannel
  acknowledger: Acknowledger
  /** 0: no consumer. */
  prefetch: number
  tag: string
  /** Why there is no consumer any more. */
  ended: string | undefined
}

/** Another prefetch takes effect at once when it is twice or half as much, else when it has stood for so long. */
const SETTLED_MS = 5_000
/** A consumer that lived so long is no reason to be slow with the next one. */
const STEADY_MS = 10_000

export function startSubscription(options: SubscriptionOptions): StandingSubscription {
  const { queue, handler, clock, log, onChange } = options
  let wanted = options.prefetch
  let isCancelled = false
  let isExact = false
  let session: Session | undefined
  let failure: string | undefined
  let inbox: { session: Session; tag: number; delivery: Delivery }[] = []
  let waking = new AbortController()
  let retrying = new AbortController()
  let stopSettling: (() => void) | undefined
  const over = Promise.withResolvers<void>()

  const wake = () => waking.abort()
  const retry = () => {
    retrying.abort()
    wake()
  }
  const linkThatIsUp = () => {
    const link = options.link()
    return link?.isOver ? undefined : link
  }

  function receive(from: Session, tag: number, delivery: Delivery): void {
    from.acknowledger.came()
    if (inbox.length === 0) setImmediate(handOver)
    inbox.push({ session: from, tag, delivery })
  }

  function handOver(): void {
    const came = inbox
    inbox = []
    // Those of a channel that is gone come again.
    const here = came.filter((one) => one.session === session)
    if (isCancelled) {
      for (const one of here) end(one, 'requeue')
      return
    }
    for (let from = 0; from < here.length; from += BATCH) {
      const batch = here.slice(from, from + BATCH)
      const ends = handler(batch.map(({ delivery }) => delivery))
      batch.forEach((one, index) => void ends[index]?.then((how) => end(one, how)))
    }
  }

  function end({ session: { acknowledger }, tag }: { session: Session; tag: number }, how: DeliveryEnd): void {
    acknowledger.settle(tag, how)
    if (isCancelled && acknowledger.out === 0) wake()
  }

  async function openSession(link: Link): Promise<Session> {
    const channel = await link.channel()
    const acknowledger = createAcknowledger({ channel: channel.id, write: (frames) => void link.write(frames), clock })
    const opened: Session = { link, channel, acknowledger, prefetch: 0, tag: '', ended: undefined }
    // The library hands deliveries over later, and drops those whose consumer is gone by then.
    channel.deliver = (message) => receive(opened, message.deliveryTag, incoming(queue, message))
    channel.onerror = (reason) => {
      opened.ended ??= reason
      const { out } = acknowledger
      if (out > 0) log.debug({ event: 'deliveries-lost', queue, count: out, reason })
      acknowledger.drop()
      wake()
    }
    return opened
  }

  /** Asks on the session's channel; one without an answer is given up, with what may still come of it. */
  async function ask<T>(on: Session, answer: Promise<T>): Promise<T> {
    try {
      return await on.link.ask(answer)
    } catch (error) {
      giveUp(on)
      throw error
    }
  }

  /** What is out on it comes again. */
  function giveUp(on: Session): void {
    if (session === on) session = undefined
    on.acknowledger.drop()
    if (!on.channel.closed) void on.link.ask(on.channel.close()).catch(() => {})
  }

  async function startConsumer(on: Session): Promise<void> {
    const prefetch = Math.min(wanted, MAX_PREFETCH)
    await ask(on, on.channel.basicQos(prefetch))
    const consumer = await ask(
      on,
      on.channel.basicConsume(queue, { noAck: false }, () => {}),
    )
    on.prefetch = prefetch
    on.tag = consumer.tag
    isExact = false
    consumer.wait().catch((error: unknown) => {
      if (on.tag !== consumer.tag) return
      on.prefetch = 0
      on.ended ??= messageOf(error)
      wake()
    })
  }

  async function stopConsumer(on: Session): Promise<void> {
    const { tag } = on
    on.tag = ''
    on.prefetch = 0
    await ask(on, on.channel.basicCancel(tag))
  }

  /** One step towards what is wanted; true when there may be another one. */
  async function step(): Promise<boolean> {
    if (session?.ended !== undefined) return lost(session)
    if (isCancelled) return leave()
    const link = linkThatIsUp()
    if (!session) {
      if (!link || wanted === 0) return false
      session = await openSession(link)
      return true
    }
    if (session.prefetch === Math.min(wanted, MAX_PREFETCH) || (!isExact && isNear(session.prefetch, wanted)))
      return false
    if (session.prefetch > 0) await stopConsumer(session)
    if (wanted > 0) await startConsumer(session)
    return true
  }

  /** The consumer was cancelled, or its channel or link is gone. */
  function lost(from: Session): boolean {
    const reason = from.ended ?? ''
    from.ended = undefined
    if (from.channel.closed) session = undefined
    if (isCancelled || from.link.isOver) return true
    throw new Error(reason)
  }

  /** Stops taking, lets what is out end, and closes the channel. */
  async function leave(): Promise<boolean> {
    if (session && session.prefetch > 0) await stopConsumer(session)
    if (session && session.acknowledger.out > 0) return false
    if (session) {
      session.acknowledger.flush()
      session.acknowledger.drop()
      const { link, channel } = session
      session = undefined
      await link.ask(channel.close())
    }
    over.resolve()
    return false
  }

  async function work(): Promise<void> {
    let failures = 0
    let since = clock.now()
    while (!(isCancelled && !session)) {
      waking = new AbortController()
      retrying = new AbortController()
      const [woken, retried] = [waking.signal, retrying.signal]
      try {
        if (await step()) continue
        tell(undefined)
        await aborted(woken)
      } catch (error) {
        if (isCancelled) continue
        if (clock.now() - since >= STEADY_MS) failures = 0
        tell(linkThatIsUp() && (refusalOf(error)?.text ?? messageOf(error)))
        await pause(clock, backoffMs(failures++), retried)
        since = clock.now()
      }
    }
    stopSettling?.()
    over.resolve()
  }

  function tell(now: string | undefined): void {
    if (now === failure) return
    failure = now
    if (now) log.warn({ event: 'consumer-lost', queue, reason: now }, `The queue "${queue}" cannot be consumed: ${now}`)
    else if (session?.tag) log.info({ event: 'consumer-back', queue }, `The queue "${queue}" is consumed again`)
    onChange()
  }

  void work()
  return {
    queue,
    over: over.promise,
    failure: () => failure && `the queue "${queue}" cannot be consumed: ${failure}`,
    retry,
    renew() {
      if (session) giveUp(session)
      retry()
    },
    flush: () => session?.acknowledger.flush(),
    setPrefetch(next) {
      if (isCancelled) return
      wanted = next
      stopSettling ??= clock.after(SETTLED_MS, () => {
        stopSettling = undefined
        isExact = true
        wake()
      })
      wake()
    },
    cancel() {
      isCancelled = true
      retry()
    },
  }
}

/** Less than twice and more than half as much. */
const isNear = (now: number, wanted: number) => wanted > 0 && wanted < 2 * now && 2 * wanted > now

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
