import { connect, type Socket } from 'node:net'
import type { Egress } from '../../runtime/egress/egress.ts'
import { messageOf } from '../../runtime/errors.ts'
import { codeOf, type Failures } from './failures.ts'

/** What decides where connections may go. */
export type Guard = Pick<Egress, 'lookup' | 'checkHost'>

/** A control connection is silent while its data flows: what lies in between must not forget it. */
const KEEP_ALIVE_MS = 30_000

const WHY: Record<string, string> = {
  ENOTFOUND: 'the host name is unknown (is it spelled right?)',
  EAI_AGAIN: 'the host name cannot be resolved just now (does the name server answer?)',
  ECONNREFUSED: 'nothing listens there (are host and port right, and is the server running?)',
  EHOSTUNREACH: 'there is no way to the host',
  ENETUNREACH: 'there is no way to the network of the host',
  ETIMEDOUT: 'the host does not answer (is a firewall in between?)',
  ECONNRESET: 'the connection was cut at once',
}
const NAME_CODES = /^(ENOTFOUND|EAI_|ENODATA|ESERVFAIL)/

/**
 * Opens a TCP connection to where the guard permits it; an abort ends it. Fails in layer `resolve` or `connect`.
 * `doing` follows "Cannot" in the message.
 */
export function dial(
  { host, port }: { host: string; port: number },
  guard: Guard,
  { fail }: Failures,
  doing: string,
  signal: AbortSignal,
): Promise<Socket> {
  const reason = host === '' ? 'no host is given' : guard.checkHost(host)
  if (reason !== undefined) return Promise.reject(fail('resolve', 'forbidden', doing, reason))
  return new Promise((resolve, reject) => {
    const socket = connect({
      host,
      port,
      lookup: guard.lookup,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
    })
    const onAbort = () => {
      socket.destroy()
      reject(signal.reason)
    }
    const onError = (error: Error) => {
      signal.removeEventListener('abort', onAbort)
      const code = codeOf(error)
      if (code === 'EGRESS_REFUSED') reject(fail('resolve', 'forbidden', doing, messageOf(error)))
      else reject(fail(NAME_CODES.test(code) ? 'resolve' : 'connect', 'refused', doing, WHY[code] ?? messageOf(error)))
    }
    socket.once('error', onError)
    socket.once('connect', () => {
      socket.off('error', onError)
      signal.removeEventListener('abort', onAbort)
      // Whoever takes the socket over listens as well; until then an error must not end the process.
      socket.on('error', () => {})
      resolve(socket)
    })
    signal.addEventListener('abort', onAbort, { once: true })
    if (signal.aborted) onAbort()
  })
}
