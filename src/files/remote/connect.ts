import type { Clock } from '../../runtime/clock.ts'
import { DEFAULT_LIMITS, type RemoteConnection, type RemoteFiles, type RemoteLimits } from '../remote-files.ts'
import type { Guard } from './dial.ts'
import { createFailures } from './failures.ts'

export interface ConnectOptions {
  /** Decides which addresses may be dialled, for data connections too. */
  guard: Guard
  clock: Clock
  limits?: Partial<RemoteLimits>
  signal?: AbortSignal
}

/**
 * Connects and logs in. Rejects with a RemoteFailure that names the layer which failed and who answered, or with the signal's
 * reason; then nothing is left open. The client of a protocol is loaded when it is first used.
 */
export async function connectRemoteFiles(
  connection: RemoteConnection,
  { guard, clock, limits, signal }: ConnectOptions,
): Promise<RemoteFiles> {
  const failures = createFailures(connection)
  const context = { connection, guard, clock, limits: { ...DEFAULT_LIMITS, ...limits }, failures }
  if (connection.protocol === 'sftp') return (await import('./sftp/files.ts')).connectSftp(context, signal)
  return (await import('./ftp/files.ts')).connectFtp(context, signal)
}
