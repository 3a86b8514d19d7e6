import { messageOf } from '../runtime/errors.ts'
import { failed, type Outcome } from '../task/outcome.ts'

/**
 * The outcome of work that is shared with other tasks and goes on without this one: when the signal aborts, the task waits
 * for it no longer than until it may leave (by default it may at once). Never rejects.
 */
export function unlessAborted(
  signal: AbortSignal,
  work: Promise<Outcome>,
  leave: () => Promise<void> = () => Promise.resolve(),
): Promise<Outcome> {
  const aborted = failed('aborted while it waited to be written', true)
  return new Promise((resolve) => {
    const onAbort = () => void leave().then(() => resolve(aborted))
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    void work
      .catch((error: unknown) => failed(messageOf(error), true))
      .then((outcome) => {
        signal.removeEventListener('abort', onAbort)
        resolve(outcome)
      })
  })
}
