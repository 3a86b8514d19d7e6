import type { Broker } from '../broker/broker.ts'
import { claimedMessage } from '../broker/wire-form.ts'
import type { ClaimRequest } from '../store/tasks/claim/claim.ts'
import { LIMITS } from '../task/limits.ts'
import type { ClaimedTask } from '../task/task.ts'
import type { DispatchOrder } from '../task/topology/queue.ts'
import type { HandOver } from './dispatcher.ts'
import { type KnownClaimDeps, knownClaim } from './known-claim.ts'

/** What it needs of the ledger. */
export interface FusedLedger {
  claimDue(request: ClaimRequest): Promise<ClaimedTask[]>
  /** What an earlier claim with this id took, when its answer was lost. */
  claimed(request: ClaimRequest): Promise<ClaimedTask[]>
}

export interface FusedHandOverDeps extends KnownClaimDeps {
  ledger: FusedLedger
  broker: Broker
  node(): string
  newId(): string
  orderOf(queue: string): DispatchOrder
  /** Gives tasks back that were claimed and that nobody takes. */
  giveBack(tasks: ClaimedTask[]): Promise<void>
}

const MAX_CLAIM = 500

/** In-process: one claim serves dispatcher and worker (pending to running), and the broker is a function call. */
export function createFusedHandOver(deps: FusedHandOverDeps): HandOver {
  const { ledger, broker, clock } = deps
  return {
    room: (queue) => broker.room(queue),
    onRoom: (listener) => broker.onChange(listener),
    async handOver(queue, signal) {
      const limit = Math.min(broker.room(queue), MAX_CLAIM)
      const request = { claimId: deps.newId(), node: deps.node(), queue, limit, order: deps.orderOf(queue) }
      const askedAt = clock.now()
      const tasks = await knownClaim(deps, queue, signal, {
        once: () => ledger.claimDue(request),
        taken: () => ledger.claimed(request).then((found) => (found.length > 0 ? found : undefined)),
        nothing: [],
      })
      const next = tasks.length === limit ? 'more' : 'drained'
      // Claimed for a node that was declared dead meanwhile: the rescuer sends them again.
      if (tasks.length === 0 || request.node !== deps.node()) return next
      if (clock.now() - askedAt >= LIMITS.startKnownWithinMs) {
        await deps.giveBack(tasks)
        return next
      }
      const ends = await broker.publish(tasks.map(claimedMessage))
      const refused = tasks.filter((_, index) => ends[index] !== 'confirmed')
      if (refused.length > 0) await deps.giveBack(refused)
      return next
    },
  }
}
