import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { RemoteFailure, type RemoteLayer } from '../../remote-files.ts'
import { bounded } from '../bounded.ts'
import { dial, type Guard } from '../dial.ts'
import { type FtpControl, isSecure } from './control.ts'
import { handshake, startTls, strangerOf } from './tls.ts'

/** A data connection for one transfer, not read from yet. */
export interface FtpData {
  socket: Socket | TLSSocket
  /** Waits for the handshake, if there is one, and checks that the peer is the control connection's. */
  trusted(): Promise<void>
}

interface Target {
  host: string
  port: number
  guard: Guard
}

type Passive = (control: FtpControl, layer: RemoteLayer, doing: string, signal?: AbortSignal) => Promise<Target>

/** Opens data connections in passive mode, by EPSV (RFC 2428) or PASV, whichever works first. */
export class FtpDataPort {
  #ways: Passive[]
  readonly #control: FtpControl

  constructor(control: FtpControl) {
    this.#control = control
    // EPSV tells no address: with `announced` it is asked only when there is no PASV, as on IPv6.
    const { passiveHost } = control.context.connection
    this.#ways = passiveHost === 'announced' ? [pasv, epsv] : [epsv, pasv]
  }

  /** To be followed at once by the command whose data it is for. Refused everywhere, it leaves the connection usable. */
  async open(layer: RemoteLayer, doing: string, signal: AbortSignal | undefined): Promise<FtpData> {
    const { client } = this.#control
    for (const [index, way] of this.#ways.entries()) {
      try {
        const socket = await this.#dial(await way(this.#control, layer, doing, signal), layer, doing, signal)
        this.#ways = [way]
        return this.#protect(socket, doing)
      } catch (error) {
        // A server that does not know EPSV, or a firewall that lets only the one through that it understands.
        const isLast = index === this.#ways.length - 1
        if (isLast || client.closed || !(error instanceof RemoteFailure) || error.reason === 'forbidden') throw error
      }
    }
    throw new TypeError('There is no way to open a data connection')
  }

  async #dial(target: Target, layer: RemoteLayer, doing: string, signal: AbortSignal | undefined): Promise<Socket> {
    const { failures, clock, limits } = this.#control.context
    const ms = limits.idleTimeoutMs
    const ended = new AbortController()
    const late = () =>
      failures.fail(layer, 'timeout', doing, `its data port ${target.port} did not answer for ${ms} ms`)
    try {
      return await bounded(dial(target, target.guard, failures, doing, ended.signal), { clock, ms, late, signal })
    } catch (error) {
      ended.abort(error)
      if (!(error instanceof RemoteFailure) || error.layer !== 'connect') throw error
      const { host, port } = target
      throw failures.fail(
        layer,
        'refused',
        doing,
        `the data connection to ${host}, port ${port}, fails (are the server's passive ports open?)`,
      )
    }
  }

  #protect(socket: Socket, doing: string): FtpData {
    const { client, context } = this.#control
    const control = client.ftp.socket
    if (!isSecure(control)) return { socket, trusted: async () => {} }
    // Servers demand the control connection's session, so that nobody else takes the data connection (vsftpd's
    // require_ssl_reuse). A TLS 1.3 ticket is good once: the newest is kept.
    const session = client.ftp.tlsSessionStore ?? control.getSession()
    const secured = startTls(socket, context.connection, session)
    secured.on('session', (fresh) => (client.ftp.tlsSessionStore = fresh))
    const { failures } = context
    // At once: a connection that has ended by the time it is asked tells nothing any more.
    const checked = new Promise<string | undefined>((resolve) =>
      secured.once('secureConnect', () => {
        const { tls } = failures.identity
        resolve(tls === null ? undefined : strangerOf(secured, tls))
      }),
    )
    const shaken = handshake(secured, failures, doing)
    shaken.catch(() => {})
    return {
      socket: secured,
      async trusted() {
        await shaken
        const stranger = await checked
        if (stranger !== undefined) throw failures.fail('tls', 'untrusted', doing, stranger)
      },
    }
  }
}

const epsv: Passive = async (control, layer, doing, signal) => {
  const { message } = await control.command(layer, doing, 'EPSV', signal)
  const port = Number(/\(([^\d])\1\1(\d{1,5})\1\)/.exec(message)?.[2])
  if (!isPort(port)) throw unreadable(control, layer, doing, message)
  return { ...controlPeer(control, layer, doing), port }
}

const pasv: Passive = async (control, layer, doing, signal) => {
  const { message } = await control.command(layer, doing, 'PASV', signal)
  const numbers = /(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3}),(\d{1,3})/.exec(message)?.slice(1).map(Number)
  const port = numbers ? (numbers[4] ?? 0) * 256 + (numbers[5] ?? 0) : Number.NaN
  if (!numbers || !isPort(port)) throw unreadable(control, layer, doing, message)
  const { connection, guard } = control.context
  if (connection.passiveHost === 'control') return { ...controlPeer(control, layer, doing), port }
  return { host: numbers.slice(0, 4).join('.'), port, guard }
}

const isPort = (port: number) => Number.isInteger(port) && port > 0 && port < 65_536

/**
 * The address that was dialled, not the name: it could resolve to another server now. It was permitted then, perhaps for its
 * name alone, of which an address tells nothing.
 */
function controlPeer({ client, context }: FtpControl, layer: RemoteLayer, doing: string): Omit<Target, 'port'> {
  const { remoteAddress } = client.ftp.socket
  if (remoteAddress === undefined) throw context.failures.fail(layer, 'closed', doing, 'the connection is gone')
  const host = remoteAddress.replace(/^::ffff:(?=\d+\.)/i, '')
  return { host, guard: { ...context.guard, checkHost: () => undefined } }
}

function unreadable({ context }: FtpControl, layer: RemoteLayer, doing: string, message: string): RemoteFailure {
  const { fail, quote } = context.failures
  return fail(layer, 'protocol', doing, `the server's answer to passive mode is ${quote(message)}`)
}
