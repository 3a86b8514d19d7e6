import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'

export interface KnownClaimDeps {
  clock: Clock
  log: Logger
  /** False while this node may start nothing new (PROTOCOL 5). */
  mayStart(): boolean
}

const RETRY_MS = 250

/**
 * Claims, and asks again under the same id when the answer was lost, until it is known what was taken (PROTOCOL 2). Gives
 * nothing when it was stopped or may start nothing any more: what an unknown claim took comes back by the beats.
 */
export async function knownClaim<T>(
  { clock, log, mayStart }: KnownClaimDeps,
  queue: string,
  signal: AbortSignal,
  claim: { once(): Promise<T>; taken(): Promise<T | undefined>; nothing: T },
): Promise<T> {
  for (let again = false; ; again = true) {
    try {
      const earlier = again ? await claim.taken() : undefined
      if (earlier !== undefined) return earlier
      if (signal.aborted || !mayStart()) return claim.nothing
      return await claim.once()
    } catch (error) {
      log.warn({ event: 'claim-failed', queue, error: messageOf(error) }, 'Cannot claim tasks; trying again')
      await pause(clock, RETRY_MS, signal)
      if (signal.aborted) return claim.nothing
    }
  }
}
