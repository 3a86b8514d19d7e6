import { FTPError, type FTPResponse } from 'basic-ftp'
import type { RemoteLayer } from '../../remote-files.ts'
import { bounded } from '../bounded.ts'
import type { FtpControl } from './control.ts'
import type { FtpDataPort } from './data.ts'

/** How long the server may take to come back into step after a transfer was broken off, in milliseconds. */
const IN_STEP_MS = 3_000
/** How long it may take to say why it broke off, in milliseconds; less than what makes it silent. */
const LAST_WORDS_MS = 1_000

export interface Transfer {
  layer: Extract<RemoteLayer, 'list' | 'read'>
  /** Follows "Cannot". */
  doing: string
  command: string
  /** Where to begin, in bytes. */
  offset?: number
  signal?: AbortSignal | undefined
}

/**
 * What the server sends on a data connection for a command, no faster than it is taken. Ends only after the server has said
 * that it is all, and gives that reply. Broken off by its taker or refused by the server, it leaves the connection usable;
 * otherwise failed, or aborted, it does not.
 */
export async function* receive(
  control: FtpControl,
  port: FtpDataPort,
  transfer: Transfer,
): AsyncGenerator<Uint8Array, FTPResponse, undefined> {
  const { layer, doing, signal } = transfer
  const wait = <T>(work: Promise<T>) => control.wait(layer, doing, work, signal)
  const data = await port.open(layer, doing, signal)
  const order = new Order(control, transfer)
  // A refusal ends the wait for data.
  order.reply.catch((error) => data.socket.destroy(error))
  try {
    const chunks = data.socket[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>
    for (let isFirst = true; ; isFirst = false) {
      const next = await wait(orLastWords(control, chunks.next(), order.reply))
      if (isFirst) await wait(data.trusted())
      if (next.done) break
      yield next.value
    }
    return await wait(order.reply)
  } finally {
    data.socket.destroy()
    await order.breakOff()
  }
}

/** A command whose data comes on another connection, and its replies. */
class Order {
  readonly #control: FtpControl
  readonly #command: string
  readonly #offset: number
  #state: 'running' | 'aborting' | 'in step' | 'over' = 'running'
  /** The server's last reply to it; rejects when that is an error. */
  readonly reply: Promise<FTPResponse>

  constructor(control: FtpControl, { command, offset = 0 }: Transfer) {
    this.#control = control
    this.#command = command
    this.#offset = offset
    const first = offset > 0 ? `REST ${offset}` : command
    this.reply = control.client.ftp.handle(first, (response, task) => {
      const isEnd = this.#state === 'running' ? this.#isLast(response) : this.#isInStep(response)
      if (!isEnd) return
      this.#state = 'over'
      if (response instanceof Error) task.reject(response)
      else task.resolve(response)
    })
    this.reply.catch(() => {})
  }

  /**
   * When the data is taken no more, before its end: servers say of that one thing, two, or nothing. So that the next reply
   * is the next command's, one is asked for that cannot be mistaken. Closes the connection when it does not come.
   */
  async breakOff(): Promise<void> {
    const { client, context } = this.#control
    if (this.#state !== 'running' || client.closed) return
    this.#state = 'aborting'
    client.ftp.send('ABOR')
    try {
      await bounded(this.reply, { clock: context.clock, ms: IN_STEP_MS, late: () => new Error('no reply') })
    } catch {
      client.close()
    }
  }

  #isLast(response: Error | FTPResponse): boolean {
    if (response instanceof Error) return true
    if (response.code === 350 && this.#offset > 0) this.#control.client.ftp.send(this.#command)
    // Below 200 it says that the data comes.
    return response.code >= 200 && response.code < 300
  }

  /** True for PWD's reply, and for the end of the connection. */
  #isInStep(response: Error | FTPResponse): boolean {
    if (response instanceof Error && !(response instanceof FTPError)) return true
    if (this.#state === 'aborting' && response.code >= 200) {
      // Not sooner: pure-ftpd takes nothing but ABOR while it sends.
      this.#state = 'in step'
      this.#control.client.ftp.send('PWD')
    }
    return response.code === 257
  }
}

/** When the data breaks off, the reason that the server gives is better than that of the socket. */
async function orLastWords<T>(control: FtpControl, work: Promise<T>, reply: Promise<FTPResponse>): Promise<T> {
  try {
    return await work
  } catch (error) {
    const { clock, limits } = control.context
    const ms = Math.min(LAST_WORDS_MS, limits.idleTimeoutMs / 2)
    await bounded(reply, { clock, ms, late: () => new Error('no reply') }).catch((said: unknown) => {
      if (said instanceof FTPError) throw said
    })
    throw error
  }
}
