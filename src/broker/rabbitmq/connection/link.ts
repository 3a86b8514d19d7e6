import type { AMQPChannel } from '@cloudamqp/amqp-client'
import { type Clock, within } from '../../../runtime/clock.ts'
import { placeOf } from './address.ts'
import { type ClientOptions, GuardedClient } from './guarded-client.ts'
import { reasonInWords } from './refusal.ts'

export interface LinkOptions extends ClientOptions {
  clock: Clock
  /** Ends the connecting, and nothing later. */
  signal: AbortSignal
}

/** An answer of the server takes at most this long. */
const ANSWER_MS = 30_000
/** Connecting takes at most this long. */
const CONNECT_MS = 10_000
/** A goodbye takes at most this long. */
const CLOSE_MS = 2_000
const HEARTBEAT_FRAME = new Uint8Array([8, 0, 0, 0, 0, 0, 0, 206])

/** One connection to RabbitMQ, from its opening to its end; there is no second life. */
export interface Link {
  /** As others see it: host and port. */
  readonly host: string
  /** RFC 3339. */
  readonly since: string
  /** The server's version, such as 3.10.8. */
  readonly version: string
  /** Why it ended; resolves when it has, and all that was asked on it is refused with that. */
  readonly ended: Promise<string>
  readonly isOver: boolean
  /** Opens a channel. Rejects like `ask`. */
  channel(): Promise<AMQPChannel>
  /** Waits for the answer to something asked on one of its channels. Rejects as that does, when the link ends, and after 30 s. */
  ask<T>(answer: Promise<T>): Promise<T>
  /** Hands frames to the socket; false when it is behind, and `onDrain` will tell. Frames for a dead socket are dropped. */
  write(frames: Uint8Array): boolean
  onDrain(listener: () => void): void
  /** Told when the server takes no publishes any more (its reason), and when it does again (undefined). */
  onBlocked(listener: (reason: string | undefined) => void): void
  /** Says goodbye, for two seconds at most. */
  close(): Promise<void>
}

/** Connects; rejects with an Error whose message is the reason in plain words. */
export async function openLink(options: LinkOptions): Promise<Link> {
  const { address, clock, signal } = options
  const client = new GuardedClient(options)
  const since = new Date().toISOString()
  let failure: unknown
  let isOver = false
  const asking = new Set<(error: Error) => void>()
  const drained: (() => void)[] = []
  const ended = Promise.withResolvers<string>()

  function end(): void {
    if (isOver) return
    isOver = true
    stopWatch()
    const reason = reasonInWords(address, failure ?? new Error('it was cut'))
    const error = new Error(reason)
    // The library does this only when the server closed the connection.
    for (const channel of client.channels) channel?.setClosed(error)
    for (const reject of asking) reject(error)
    asking.clear()
    ended.resolve(reason)
  }

  function cut(error: Error): void {
    failure ??= error
    client.closed = true
    client.socket?.destroy()
    end()
  }

  /**
   * The library answers heartbeats, and has a timer that every write winds up. This one goes by what is heard alone, takes a
   * stall of this process for no silence, and sends a heartbeat twice in its time whatever else happens.
   */
  let silentTicks = 0
  let stopWatch = () => {}
  function watch(heartbeatSeconds: number): void {
    stopWatch = clock.after(heartbeatSeconds * 500, () => {
      silentTicks = client.heard ? 0 : silentTicks + 1
      client.heard = false
      if (silentTicks >= 3) return cut(new Error(`it gave no sign of life for ${heartbeatSeconds * 1.5} s`))
      client.socket?.write(HEARTBEAT_FRAME)
      watch(heartbeatSeconds)
    })
  }

  client.ondisconnect = (error) => {
    failure ??= error
    end()
  }
  const connecting = client.connect()
  // The library wraps the socket's errors and loses their codes.
  client.socket?.on('error', (error) => {
    failure ??= error
  })
  client.socket?.on('close', end)
  client.socket?.on('drain', () => {
    for (const listener of drained) listener()
  })
  const giveUp = () => cut(new Error('Longshore stops'))
  signal.addEventListener('abort', giveUp)
  try {
    const late = new Error(`it does not answer within ${CONNECT_MS / 1_000} s`)
    const gone = ended.promise.then((reason) => new Error(reason))
    const came = await within(clock, CONNECT_MS, Promise.race([connecting, gone]), late)
    if (came instanceof Error) throw came
  } catch (error) {
    failure ??= error
    // Its own words come in an error of the protocol, after which the socket ends with another one.
    const told = error instanceof Error && error.message.startsWith('connection closed: ') ? error : failure
    cut(error as Error)
    throw new Error(reasonInWords(address, told))
  } finally {
    signal.removeEventListener('abort', giveUp)
    // The library's errors carry the client with them.
    client.password = ''
  }
  // As agreed: a server may want it more often, or not at all.
  client.socket?.setTimeout(0)
  if (client.heartbeat > 0) watch(client.heartbeat)
  else client.socket?.setKeepAlive(true, 20_000)

  async function ask<T>(answer: Promise<T>): Promise<T> {
    const given = Promise.withResolvers<T>()
    if (isOver) given.reject(new Error(await ended.promise))
    asking.add(given.reject)
    const stopTimer = clock.after(ANSWER_MS, () =>
      given.reject(new Error(`the broker at ${placeOf(address)} did not answer within ${ANSWER_MS / 1_000} s`)),
    )
    answer.then(given.resolve, given.reject)
    try {
      return await given.promise
    } finally {
      stopTimer()
      asking.delete(given.reject)
    }
  }

  return {
    host: placeOf(address),
    since,
    version: client.serverVersion,
    ended: ended.promise,
    get isOver() {
      return isOver
    },
    ask,
    async channel() {
      const channel = await ask(client.channel())
      channel.onerror = () => {}
      return channel
    },
    write: (frames) => client.socket?.write(frames) ?? true,
    onDrain: (listener) => void drained.push(listener),
    onBlocked(listener) {
      client.onblocked = listener
      client.onunblocked = () => listener(undefined)
      if (client.blocked !== undefined) listener(client.blocked)
    },
    async close() {
      if (isOver) return
      const goodbye = new Error('Longshore closed it')
      failure = goodbye
      const closing = ask(client.close())
      // The library tells them nothing when it was we who closed the connection.
      for (const channel of client.channels) channel?.setClosed(goodbye)
      await within(clock, CLOSE_MS, closing, undefined).catch(() => {})
      cut(goodbye)
    },
  }
}
