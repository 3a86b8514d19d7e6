import type { Clock } from '../../runtime/clock.ts'

/**
 * What `work` comes to; rejects with `late()` when that takes longer than `ms`, and with the signal's reason when it is
 * aborted first. The work itself goes on: the caller ends it by closing what it waits on.
 */
export async function bounded<T>(
  work: Promise<T>,
  { clock, ms, late, signal }: { clock: Clock; ms: number; late: () => Error; signal?: AbortSignal | undefined },
): Promise<T> {
  const early = Promise.withResolvers<never>()
  const onAbort = () => early.reject(signal?.reason)
  const cancel = clock.after(ms, () => early.reject(late()))
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted) onAbort()
  try {
    return await Promise.race([work, early.promise])
  } finally {
    cancel()
    signal?.removeEventListener('abort', onAbort)
  }
}
