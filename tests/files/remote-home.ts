import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { testServers } from '../../scripts/test-servers.ts'
import { type ConnectOptions, connectRemoteFiles } from '../../src/files/remote/connect.ts'
import { type RemoteConnection, RemoteFailure, type RemoteFiles } from '../../src/files/remote-files.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createEgress } from '../../src/runtime/egress/egress.ts'
import { type Certificates, makeCertificates } from '../support/certificates.ts'

const found = testServers()
/** Why there are no servers on this machine; undefined when there are. */
export const noServers: string | undefined = found.servers === undefined ? found.reason : undefined

/** A folder that servers can live in, with certificates for them. */
export interface RemoteHome extends AsyncDisposable {
  readonly path: string
  readonly certificates: Certificates
}

export async function remoteHome(): Promise<RemoteHome> {
  const path = await mkdtemp('/var/tmp/longshore-remote-')
  // The servers' user has to get through.
  await chmod(path, 0o755)
  return {
    path,
    certificates: await makeCertificates(path),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  }
}

/** Everything may be reached but what never may. */
export const openGuard = createEgress({ allow: [], allowPrivate: true })

export function connect(connection: RemoteConnection, options: Partial<ConnectOptions> = {}): Promise<RemoteFiles> {
  return connectRemoteFiles(connection, { guard: openGuard, clock: realClock, ...options })
}

/** As `connect`, for something to be done, and closed. */
export async function visit<T>(
  connection: RemoteConnection,
  work: (files: RemoteFiles) => Promise<T>,
  options: Partial<ConnectOptions> = {},
): Promise<T> {
  const files = await connect(connection, options)
  try {
    return await work(files)
  } finally {
    await files.close()
  }
}

/** What `work` fails with, which has to be a RemoteFailure. */
export async function failureOf(work: Promise<unknown>): Promise<RemoteFailure> {
  const error = await work.then(
    () => new Error('It did not fail'),
    (thrown: unknown) => thrown,
  )
  if (error instanceof RemoteFailure) return error
  throw error
}

export async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const taken: T[] = []
  for await (const item of items) taken.push(item)
  return taken
}

/** Copies: a chunk is used again when the next one is taken. */
export async function bytesOf(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const copies: Uint8Array[] = []
  for await (const chunk of chunks) copies.push(Buffer.from(chunk))
  return Buffer.concat(copies)
}
