import { type Clock, pause } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Database } from './database.ts'

const WITHIN_MS = 60_000
const RETRY_MS = 1_000

/** SQLSTATEs of a server that answered and does not let us in: time mends neither a password nor a name. */
const REFUSED = /^(28|3D)/

/**
 * Services may start in any order: waits a minute for the server, but not when it refuses us. Rejects with the last try's
 * error, or with the reason of `signal`.
 */
export async function waitForServer(
  { pool }: Database,
  { log, clock, signal }: { log: Logger; clock: Clock; signal?: AbortSignal | undefined },
): Promise<void> {
  const deadline = clock.now() + WITHIN_MS
  for (;;) {
    signal?.throwIfAborted()
    try {
      await pool.query('select 1')
      return
    } catch (error) {
      if (REFUSED.test(String((error as { code?: unknown }).code)) || clock.now() > deadline) throw error
      log.warn(
        { event: 'database-awaited', error: messageOf(error) },
        'The database cannot be reached yet; trying again',
      )
      await pause(clock, RETRY_MS, signal)
    }
  }
}
