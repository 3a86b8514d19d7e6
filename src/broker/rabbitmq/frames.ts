import type { AMQPProperties, Field } from '@cloudamqp/amqp-client'
import { AMQPView } from '@cloudamqp/amqp-client/amqp-view'

/*
 * Frames of AMQP 0-9-1 (2.3.5) that are written by the thousand: the library writes each with a buffer, a promise and a
 * system call of its own, which halves what RabbitMQ takes.
 */

const METHOD = 1
const HEADER = 2
const BODY = 3
const FRAME_END = 206
const FRAME_OVERHEAD = 8
const BASIC = 60
const PUBLISH = 40
const ACK = 80
const REJECT = 90
const MANDATORY = 1
const SETTLE_FRAME = 21
/** Doubles would else lose half of their digits, and integers from 2^31 their sign. */
const INT32 = 2 ** 31

class FrameView extends AMQPView {
  override setField(byteOffset: number, field: Field, littleEndian?: boolean): number {
    if (typeof field !== 'number' || (Number.isInteger(field) && Math.abs(field) < INT32))
      return super.setField(byteOffset, field, littleEndian)
    if (Number.isSafeInteger(field)) return super.setField(byteOffset, BigInt(field), littleEndian)
    this.setUint8(byteOffset, 'd'.charCodeAt(0))
    this.setFloat64(byteOffset + 1, field, littleEndian)
    return 9
  }
}

/** One message as it is written. */
export interface OutgoingMessage {
  exchange: string
  routingKey: string
  body: Uint8Array
  properties: AMQPProperties
}

/** Gathers frames for one write. */
export interface FrameWriter {
  /** Bytes gathered. */
  readonly length: number
  /** Adds a message; throws, with nothing added, when its names or headers do not fit into a frame of `frameMax` bytes. */
  publish(channel: number, message: OutgoingMessage, frameMax: number): void
  ack(channel: number, tag: number, multiple: boolean): void
  reject(channel: number, tag: number, requeue: boolean): void
  /** What was gathered, as a copy; the writer is empty again. */
  take(): Uint8Array
}

/** What a writer keeps for the next time. */
const KEPT_BYTES = 1024 * 1024

export function createFrameWriter(): FrameWriter {
  let view = new FrameView(new ArrayBuffer(1024))
  let bytes = new Uint8Array(view.buffer)
  let end = 0

  function makeRoom(more: number): void {
    if (end + more > bytes.length) resize(2 ** Math.ceil(Math.log2(end + more)))
  }

  function resize(size: number): void {
    const other = new Uint8Array(size)
    other.set(bytes.subarray(0, end))
    bytes = other
    view = new FrameView(other.buffer)
  }

  /** Writes a frame around what `content` writes at the place it is given; it gives the place behind. */
  function frame(at: number, type: number, channel: number, content: (at: number) => number): number {
    view.setUint8(at, type)
    view.setUint16(at + 1, channel)
    const after = content(at + 7)
    view.setUint32(at + 3, after - at - 7)
    view.setUint8(after, FRAME_END)
    return after + 1
  }

  function method(at: number, id: number): number {
    view.setUint16(at, BASIC)
    view.setUint16(at + 2, id)
    return at + 4
  }

  function settle(id: number, channel: number, tag: number, bit: boolean): void {
    makeRoom(SETTLE_FRAME)
    end = frame(end, METHOD, channel, (start) => {
      const at = method(start, id)
      view.setUint64(at, tag)
      view.setUint8(at + 8, bit ? 1 : 0)
      return at + 9
    })
  }

  return {
    get length() {
      return end
    },
    publish(channel, { exchange, routingKey, body, properties }, frameMax) {
      const room = frameMax - FRAME_OVERHEAD
      // Names, and the properties with whatever headers: at most one frame each, else the view throws.
      makeRoom(2 * frameMax + body.length + FRAME_OVERHEAD * Math.ceil(body.length / room))
      let at = frame(end, METHOD, channel, (start) => {
        let next = method(start, PUBLISH)
        view.setUint16(next, 0)
        next += 2
        next += view.setShortString(next, exchange)
        next += view.setShortString(next, routingKey)
        view.setUint8(next, MANDATORY)
        return next + 1
      })
      const header = at
      at = frame(at, HEADER, channel, (start) => {
        view.setUint32(start, BASIC << 16)
        view.setUint32(start + 4, 0)
        view.setUint32(start + 8, body.length)
        return start + 12 + view.setProperties(start + 12, properties)
      })
      if (at - header > frameMax) throw new RangeError(`its properties take more than ${frameMax} bytes`)
      for (let from = 0; from < body.length; from += room) {
        at = frame(at, BODY, channel, (start) => {
          const part = body.subarray(from, from + room)
          bytes.set(part, start)
          return start + part.length
        })
      }
      end = at
    },
    ack: (channel, tag, multiple) => settle(ACK, channel, tag, multiple),
    reject: (channel, tag, requeue) => settle(REJECT, channel, tag, requeue),
    take() {
      const taken = bytes.slice(0, end)
      end = 0
      if (bytes.length > KEPT_BYTES) resize(KEPT_BYTES)
      return taken
    },
  }
}
