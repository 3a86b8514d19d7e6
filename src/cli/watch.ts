import { pause, realClock } from '../runtime/clock.ts'
import { parseDuration } from '../runtime/duration.ts'
import { EXIT, Failure } from './failure.ts'

/** A node that restarts must not end the watch. */
const PATIENCE_MS = 30_000

/**
 * Reads again and again until `onAnswer` is true of what it got, which it gives; undefined when `timeout` (of --timeout) is over
 * before.
 */
export async function watch<Answer>(
  read: () => Promise<Answer>,
  { timeout, waitMs, onAnswer }: { timeout: string | undefined; waitMs(): number; onAnswer(answer: Answer): boolean },
): Promise<Answer | undefined> {
  const limitMs = timeout === undefined ? Number.POSITIVE_INFINITY : parseDuration(timeout)
  if (limitMs === undefined)
    throw new Failure(`--timeout must be a duration such as 30s or 5m, not ${timeout}`, EXIT.usage)
  const startedAt = realClock.now()
  let answeredAt: number | undefined
  for (;;) {
    try {
      const answer = await read()
      answeredAt = realClock.now()
      if (onAnswer(answer)) return answer
    } catch (error) {
      const isAway = error instanceof Failure && error.exitCode === EXIT.unreachable
      if (!isAway || answeredAt === undefined || realClock.now() - answeredAt > PATIENCE_MS) throw error
    }
    if (realClock.now() - startedAt > limitMs) return undefined
    await pause(realClock, waitMs())
  }
}
