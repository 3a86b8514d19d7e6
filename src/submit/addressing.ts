import { route } from '../broker/routing.ts'
import type { Addressing } from '../store/tasks/insert/insert-addressed.ts'
import type { BrokerKind } from '../task/ledger.ts'

/** How tasks that are addressed to an exchange are stored on nodes with this kind of broker: routed as that one would. */
export function addressingFor(broker: BrokerKind): Addressing {
  return { route, broker }
}
