import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'

/** What ends a part that was begun; carried out in the reverse order. */
export type Stops = (() => Promise<void>)[]

/** Ends all that was begun, once; what cannot end in order is logged. */
export async function runStops(stops: Stops, log: Logger): Promise<void> {
  for (const end of stops.splice(0).reverse()) {
    await end().catch((error) => log.error({ event: 'stop-failed', error: messageOf(error) }, 'Cannot stop in order'))
  }
}
