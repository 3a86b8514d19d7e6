import type { Clock } from '../../runtime/clock.ts'
import type { RemoteConnection, RemoteLayer, RemoteLimits } from '../remote-files.ts'
import { bounded } from './bounded.ts'
import type { Guard } from './dial.ts'
import type { Failures } from './failures.ts'

/** What both adapters work with. */
export interface RemoteContext {
  connection: RemoteConnection
  guard: Guard
  clock: Clock
  limits: RemoteLimits
  failures: Failures
}

/** Runs one step of a connect; `doing` follows "Cannot", `waiting` says what is waited for. */
export type Step = <T>(layer: RemoteLayer, doing: string, waiting: string, run: () => Promise<T>) => Promise<T>

/**
 * Runs a connect whose steps share one deadline. When it fails, is aborted or takes too long, `signal` (which it gets) aborts,
 * and what it opened has to close itself on that.
 */
export async function inSteps<T>(
  { clock, limits: { connectTimeoutMs }, failures }: RemoteContext,
  signal: AbortSignal | undefined,
  connect: (step: Step, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const end = clock.now() + connectTimeoutMs
  const given = new AbortController()
  const step: Step = (layer, doing, waiting, run) =>
    bounded(run(), {
      clock,
      signal,
      ms: Math.max(0, end - clock.now()),
      late: () => failures.fail(layer, 'timeout', doing, `${waiting} did not come within ${connectTimeoutMs} ms`),
    })
  try {
    signal?.throwIfAborted()
    return await connect(step, given.signal)
  } catch (error) {
    given.abort(error)
    throw error
  }
}
