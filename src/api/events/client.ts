import type { EventFilter } from './filter.ts'

/** One client of the event feed: what waits for it, and the stream it reads. */
export interface EventClient {
  readonly filter: EventFilter
  readonly stream: ReadableStream<Uint8Array>
  /** Aborts when it is cut. */
  readonly cutSignal: AbortSignal
  /** Live events reach it from now on. */
  joined: boolean
  send(chunk: Uint8Array): void
  /** From now on what is sent waits behind what `sendFirst` brings, until `release`. */
  hold(): void
  sendFirst(chunk: Uint8Array): void
  release(): void
  waitingBytes(): number
  /** Ends the stream after what waits is read, at once when nothing does. */
  end(): void
  /** Ends the stream at once and drops what waits. */
  cut(): void
}

/** What is handed over at once, in bytes, if there is as much. */
const PIECE_BYTES = 64 * 1024

/** `onLeft` is called once, when the client is gone, cut or ended. */
export function createEventClient(filter: EventFilter, onLeft: (client: EventClient) => void): EventClient {
  let ready: Uint8Array[] = []
  let held: Uint8Array[] | undefined
  let bytes = 0
  let ended = false
  const cutting = new AbortController()
  let controller: ReadableStreamDefaultController<Uint8Array>
  let wanted: (() => void) | undefined

  function give(): void {
    const pieces: Uint8Array[] = []
    let size = 0
    while (ready.length > 0 && size < PIECE_BYTES) {
      const piece = ready.shift() as Uint8Array
      pieces.push(piece)
      size += piece.byteLength
    }
    bytes -= size
    controller.enqueue(pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces, size))
  }

  function leave(): void {
    ended = true
    ready = []
    held = undefined
    bytes = 0
    wanted?.()
    onLeft(client)
  }

  /** Gives what is ready to a reader that waits. */
  function flow(): void {
    if (!wanted || ready.length === 0) return
    give()
    wanted()
  }

  const stream = new ReadableStream<Uint8Array>(
    {
      start(given) {
        controller = given
      },
      pull() {
        if (ended) return
        if (ready.length > 0) return give()
        return new Promise<void>((resolve) => {
          wanted = () => {
            wanted = undefined
            resolve()
          }
        })
      },
      cancel() {
        if (!ended) leave()
      },
    },
    // Nothing is made in advance: what the reader does not take stays here, where it is counted.
    { highWaterMark: 0 },
  )

  const client: EventClient = {
    filter,
    stream,
    cutSignal: cutting.signal,
    joined: false,
    send(chunk) {
      if (ended) return
      bytes += chunk.byteLength
      if (held) held.push(chunk)
      else ready.push(chunk)
      flow()
    },
    hold() {
      held = []
    },
    sendFirst(chunk) {
      if (ended) return
      bytes += chunk.byteLength
      ready.push(chunk)
      flow()
    },
    release() {
      ready.push(...(held ?? []))
      held = undefined
      flow()
    },
    waitingBytes: () => bytes,
    end() {
      if (ended) return
      leave()
      controller.close()
    },
    cut() {
      if (ended) return
      leave()
      controller.error(new Error('the client does not read'))
      cutting.abort()
    },
  }
  return client
}
