import { isIP, type Socket } from 'node:net'
import { checkServerIdentity, connect, type PeerCertificate, type TLSSocket } from 'node:tls'
import { messageOf } from '../../../runtime/errors.ts'
import type { RemoteConnection, TlsIdentity } from '../../remote-files.ts'
import { codeOf, type Failures } from '../failures.ts'

const WHY: Record<string, string> = {
  CERT_HAS_EXPIRED: 'its certificate has expired',
  CERT_NOT_YET_VALID: 'its certificate is not valid yet',
  DEPTH_ZERO_SELF_SIGNED_CERT: 'it signed its certificate itself',
  SELF_SIGNED_CERT_IN_CHAIN: 'its certificate is signed by an authority that is not trusted here',
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: 'its certificate is signed by an authority that is not trusted here',
  UNABLE_TO_GET_ISSUER_CERT: 'its certificate is signed by an authority that is not trusted here',
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: 'its certificate is signed by an authority that is not trusted here',
}

/**
 * Speaks TLS over `socket`. Whether to trust the peer is decided by the caller, before anything is sent: nothing is refused
 * here, so that the certificate of a stranger can be shown.
 */
export function startTls(
  socket: Socket,
  { host, tls }: Pick<RemoteConnection, 'host' | 'tls'>,
  session?: Buffer,
): TLSSocket {
  const secure = connect({
    socket,
    host,
    // Never an address: RFC 6066.
    servername: isIP(host) ? '' : host,
    rejectUnauthorized: false,
    minVersion: tls.minVersion,
    ...(tls.ca === undefined ? {} : { ca: tls.ca }),
    ...(session === undefined ? {} : { session }),
  })
  secure.on('error', () => {})
  return secure
}

/** Waits for the handshake of `startTls`; fails in layer `tls`. */
export function handshake(socket: TLSSocket, { fail }: Failures, doing: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const ended = (error?: Error) => {
      const why = error ? handshakeError(error) : 'the server hung up (does it speak TLS on this port?)'
      reject(fail('tls', error ? 'refused' : 'closed', doing, why))
    }
    socket.once('secureConnect', resolve)
    socket.once('error', ended)
    socket.once('close', () => ended())
  })
}

function handshakeError(error: Error): string {
  const code = codeOf(error)
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH|UNEXPECTED_MESSAGE/.test(code)) return 'what answers there is not TLS'
  if (/PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL/.test(code)) return 'the server only speaks TLS that is too old'
  if (code === 'ECONNRESET') return 'the server hung up (does it speak TLS on this port?)'
  return `the TLS handshake failed: ${messageOf(error)}`
}

/** What the peer of a finished handshake has shown. */
export function tlsIdentity(socket: TLSSocket): TlsIdentity {
  // None when the peer has hung up meanwhile, whatever the types say.
  const certificate: Partial<PeerCertificate> = socket.getPeerCertificate() ?? {}
  return {
    version: socket.getProtocol() ?? 'unknown',
    fingerprint: certificate.fingerprint256 ?? '',
    subject: nameOf(certificate.subject),
    issuer: nameOf(certificate.issuer),
    validTo: certificate.valid_to ? new Date(certificate.valid_to).toISOString() : '',
  }
}

/** Throws in layer `tls` unless the peer is one that the connection's settings trust. */
export function checkTrust(
  socket: TLSSocket,
  { host, tls }: RemoteConnection,
  identity: TlsIdentity,
  { fail }: Failures,
): void {
  const refuse = (why: string) => fail('tls', 'untrusted', 'trust the server', why)
  if (identity.fingerprint === '') throw refuse('it shows no certificate')
  if (tls.fingerprint !== undefined) {
    if (plainHex(tls.fingerprint) === plainHex(identity.fingerprint)) return
    throw refuse(
      `its certificate has the fingerprint ${identity.fingerprint}, not the pinned one: it was renewed, or somebody is in between`,
    )
  }
  if (!tls.verify) return
  const wrongName = checkServerIdentity(host, socket.getPeerCertificate())
  if (socket.authorized && wrongName === undefined) return
  const code = String(socket.authorizationError ?? '')
  const why =
    WHY[code] ??
    (wrongName
      ? `its certificate is for another host (${wrongName.message})`
      : `its certificate is not valid (${code})`)
  throw refuse(`${why}; it is from ${identity.issuer} and has the fingerprint ${identity.fingerprint}`)
}

/** Why a data connection, just after its handshake, is not with the peer that the control connection is with. */
export function strangerOf(socket: TLSSocket, control: TlsIdentity): string | undefined {
  if (socket.isSessionReused()) return undefined
  const shown = socket.getPeerCertificate()?.fingerprint256
  if (shown !== undefined && shown === control.fingerprint) return undefined
  return 'the data connection has another certificate than the control connection'
}

const plainHex = (fingerprint: string) =>
  fingerprint
    .replace(/^SHA256:/i, '')
    .replaceAll(':', '')
    .toLowerCase()

function nameOf(name: object | undefined): string {
  return Object.entries(name ?? {})
    .flatMap(([key, value]) => [value ?? []].flat().map((each) => `${key}=${each}`))
    .join(', ')
}
