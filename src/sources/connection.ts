import type { ConnectOptions } from '../files/remote/connect.ts'
import { connectRemoteFiles } from '../files/remote/connect.ts'
import {
  type RemoteAuth,
  type RemoteConnection,
  RemoteFailure,
  type RemoteFiles,
  type RemoteIdentity,
} from '../files/remote-files.ts'
import type { Clock } from '../runtime/clock.ts'
import { type SecretBox, SecretUnreadable } from '../runtime/secret-box.ts'
import type { Database } from '../store/database/database.ts'
import { pinIdentity, raiseAlert } from '../store/sources/change.ts'
import type { StoredSource } from '../store/sources/read.ts'
import { aboutSource } from '../store/sources/secrets.ts'
import { type CompleteSource, completeSource } from '../task/source/defaults.ts'
import type { SourceAuth } from '../task/source/source.ts'
import type { ServerIdentity } from '../task/source/state.ts'
import { statedIdentity } from './trust.ts'

export interface ConnectionDeps {
  pool: Database['pool']
  clock: Clock
  /** Decides where connections may go (SSRF). */
  guard: ConnectOptions['guard']
  /** Undefined: this node has no key for stored credentials. */
  box: SecretBox | undefined
}

/** The server answered as somebody else than the one who is expected; an alert is raised. */
export class StrangerAnswered extends Error {
  override readonly name = 'StrangerAnswered'
}

/** A source that logs in as somebody has no password for it. */
export class SecretMissing extends Error {
  override readonly name = 'SecretMissing'
}

const ANONYMOUS: RemoteAuth = { kind: 'password', username: 'anonymous', password: 'anonymous@' }

/**
 * Connects to a source's server. The first one who answers is kept, where nothing else vouches for who it is (the host key of
 * SFTP, a certificate that is not verified); a change of it raises an alert and rejects with StrangerAnswered. Rejects with
 * RemoteFailure, SecretMissing or SecretUnreadable otherwise.
 */
export async function connectSource(
  source: StoredSource,
  { pool, clock, guard, box }: ConnectionDeps,
  signal?: AbortSignal,
): Promise<RemoteFiles> {
  const plan = completeSource(source.settings)
  const connection = connectionOf(source, plan, credentials(source, box))
  const { connectTimeoutMs, idleTimeoutMs } = plan.limits
  const options = { guard, clock, limits: { connectTimeoutMs, idleTimeoutMs }, ...(signal && { signal }) }
  let remote: RemoteFiles
  try {
    remote = await connectRemoteFiles(connection, options)
  } catch (error) {
    throw (await strangerOf(pool, source, connection, error)) ?? error
  }
  const found = identityOf(remote.identity)
  if (!source.pinned && isKept(connection) && found) {
    const kept = await pinIdentity(pool, source.id, found)
    if (kept && fingerprintOf(kept) !== fingerprintOf(found)) {
      await remote.close()
      throw await raise(pool, source, fingerprintOf(kept), found)
    }
  }
  return remote
}

function connectionOf({ pinned }: StoredSource, plan: CompleteSource, auth: RemoteAuth): RemoteConnection {
  const { protocol, host, port, tls, passiveHost } = plan
  const hostKey = plan.hostKey ?? pinned?.hostKey?.fingerprint
  const fingerprint = tls.fingerprint ?? (tls.verify ? undefined : pinned?.certificate?.fingerprint)
  return {
    protocol,
    host,
    port,
    auth,
    tls: {
      verify: tls.verify,
      minVersion: tls.minVersion,
      ...(tls.ca !== undefined && { ca: tls.ca }),
      ...(fingerprint !== undefined && { fingerprint }),
    },
    ...(protocol === 'sftp' && hostKey !== undefined && { hostKey }),
    passiveHost,
  }
}

/** How to log in; throws SecretMissing or SecretUnreadable. */
function credentials({ id, name, auth, sealed }: StoredSource, box: SecretBox | undefined): RemoteAuth {
  if (!auth) return ANONYMOUS
  const { kind, username } = auth
  if (!sealed) {
    throw new SecretMissing(
      `The password of "${username}" is missing: the list that "${name}" comes from does not tell it, or has named another server or user since. Give it: PATCH the source's "auth"`,
    )
  }
  if (!box) throw new SecretUnreadable('It cannot be decrypted: this node has no LONGSHORE_SECRET_KEY')
  return { kind, username, ...JSON.parse(box.open(sealed, aboutSource(id))) } as RemoteAuth
}

/** What is encrypted of it, as text. */
export function secretOf(auth: SourceAuth): string {
  const { kind: _, username: __, ...secret } = auth
  return JSON.stringify(secret)
}

/** Whoever answers first is expected from then on; else an authority, or a setting, says who it must be. */
function isKept({ protocol, hostKey, tls }: RemoteConnection): boolean {
  if (protocol === 'sftp') return hostKey === undefined
  return protocol !== 'ftp' && !tls.verify && tls.fingerprint === undefined
}

async function strangerOf(
  pool: Database['pool'],
  source: StoredSource,
  { hostKey, tls }: RemoteConnection,
  error: unknown,
): Promise<StrangerAnswered | undefined> {
  if (!(error instanceof RemoteFailure) || error.reason !== 'untrusted') return undefined
  const expected = hostKey ?? tls.fingerprint
  const found = identityOf(error.identity)
  return expected === undefined || !found ? undefined : raise(pool, source, expected, found)
}

async function raise(
  pool: Database['pool'],
  { id, name, settings }: StoredSource,
  expected: string,
  found: ServerIdentity,
): Promise<StrangerAnswered> {
  const what = found.hostKey ? 'host key' : 'certificate'
  const stated = statedIdentity(settings)
  const [than, remedy] = stated
    ? ['the source states', `PATCH its "${stated}" and give "auth" again`]
    : ['before', 'confirm it']
  const message =
    `The server of "${name}" has another ${what} than ${than}: ${fingerprintOf(found)}, not ${expected}. ` +
    `Nothing was sent to it. Ask its operator; if the new one is right, ${remedy}`
  await raiseAlert(pool, id, { kind: 'identity', message, found })
  return new StrangerAnswered(message)
}

/** Undefined when the server has shown nothing that tells it from others. */
export function identityOf({ hostKey, tls }: RemoteIdentity): ServerIdentity | undefined {
  if (!hostKey && !tls) return undefined
  const { fingerprint = '', subject = '', issuer = '', validTo = '' } = tls ?? {}
  return {
    hostKey,
    certificate: tls && { fingerprint, subject, issuer, validTo },
    at: new Date().toISOString(),
  }
}

function fingerprintOf({ hostKey, certificate }: ServerIdentity): string {
  return hostKey?.fingerprint ?? certificate?.fingerprint ?? ''
}
