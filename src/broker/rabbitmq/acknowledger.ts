import type { Clock } from '../../runtime/clock.ts'
import type { DeliveryEnd } from '../broker.ts'
import { createFrameWriter } from './frames.ts'

/** Acks behind an older delivery that is still out wait so long for it, so that one ack can cover them. */
const HOLD_MS = 10

/** Tells the server how deliveries of one channel ended, with as few frames as the order of their ends allows. */
export interface Acknowledger {
  /** Notes that the next delivery came: their tags are consecutive, from 1. */
  came(): void
  /** Notes the end of one; it is told with those of the same turn. */
  settle(tag: number, end: DeliveryEnd): void
  /** Deliveries that have not ended. */
  readonly out: number
  /** Tells at once what is not told yet. */
  flush(): void
  /** Tells nothing more: the channel is gone. */
  drop(): void
}

export interface AcknowledgerOptions {
  channel: number
  /** Hands frames to the channel's socket. */
  write(frames: Uint8Array): void
  clock: Clock
}

export function createAcknowledger({ channel, write, clock }: AcknowledgerOptions): Acknowledger {
  const writer = createFrameWriter()
  let newest = 0
  /** Deliveries that have not ended, the oldest first. */
  const out = new Set<number>()
  /** Acks that are not told. */
  let acks: number[] = []
  let isScheduled = false
  let stopHold: (() => void) | undefined
  let isDropped = false

  function schedule(): void {
    if (isScheduled) return
    isScheduled = true
    setImmediate(() => {
      isScheduled = false
      tell()
    })
  }

  function tell(): void {
    if (isDropped) return
    tellRun()
    if (writer.length > 0) write(writer.take())
    if (acks.length > 0) stopHold ??= clock.after(HOLD_MS, tellHeld)
  }

  /** One ack for everything before the oldest that is out. */
  function tellRun(): void {
    const [oldest = Number.POSITIVE_INFINITY] = out
    let last = 0
    for (const tag of acks) if (tag < oldest) last = Math.max(last, tag)
    if (last === 0) return
    writer.ack(channel, last, true)
    acks = acks.filter((tag) => tag > last)
  }

  /** An older delivery takes its time: those behind it would else count against the prefetch for as long. */
  function tellHeld(): void {
    stopHold = undefined
    tellRun()
    for (const tag of acks.splice(0)) writer.ack(channel, tag, false)
    tell()
  }

  return {
    came: () => void out.add(++newest),
    settle(tag, how) {
      if (isDropped) return
      out.delete(tag)
      if (how === 'ack') acks.push(tag)
      else writer.reject(channel, tag, how === 'requeue')
      schedule()
    },
    get out() {
      return out.size
    },
    flush() {
      stopHold?.()
      tellHeld()
    },
    drop() {
      isDropped = true
      stopHold?.()
    },
  }
}
