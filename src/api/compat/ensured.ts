import { Problem } from '../../runtime/errors.ts'
import type { WantedTopology } from '../../store/topology/ensure.ts'

export interface EnsureDeps {
  /** Makes what is missing and leaves alone what is there; resolves when this node goes by it. */
  ensureTopology(wanted: WantedTopology): Promise<void>
}

/**
 * Gives a way to submit into `wanted`: a submit that is refused because its queues or its exchange are not there (yet, or any
 * more) is repeated once they are made. So nothing is made before it is used, and nothing is asked when it is there.
 */
export function ensuredSubmits({ ensureTopology }: EnsureDeps, wanted: WantedTopology) {
  let making: Promise<void> | undefined
  const make = () => {
    making ??= ensureTopology(wanted).finally(() => {
      making = undefined
    })
    return making
  }
  return async <T>(submit: () => Promise<T>): Promise<T> => {
    try {
      return await submit()
    } catch (error) {
      if (!(error instanceof Problem) || (error.status !== 422 && error.status !== 404)) throw error
      await make()
      return await submit()
    }
  }
}
