import type { Broker, Delivery, DeliveryEnd, Subscription } from '../broker/broker.ts'
import { readDeadStray, readStray } from '../broker/stray.ts'
import { identityOf, UNREADABLE_HEADER } from '../broker/wire-form.ts'
import { createBatcher } from '../runtime/batcher.ts'
import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Claim, ClaimAnswer, DeliveryClaim, Ledger } from '../task/ledger.ts'
import { LIMITS } from '../task/limits.ts'
import type { ClaimedTask } from '../task/task.ts'
import { tellUnreadable } from './delivery-log.ts'

/** Takes claimed tasks in batches; each promise ends its delivery and never rejects. */
export type TakeTasks = (tasks: ClaimedTask[]) => Promise<DeliveryEnd>[]

/** How a worker gets the tasks of a queue: claimed for this node, at most `prefetch` of them out at once. */
export type Intake = (queue: string, prefetch: number, take: TakeTasks) => Subscription

/** In-process: the dispatcher has claimed them already. */
export function fusedIntake(broker: Broker): Intake {
  return (queue, prefetch, take) =>
    broker.consume(queue, prefetch, (deliveries) => take(deliveries.flatMap(({ task }) => task ?? [])))
}

export interface ClaimingDeps {
  broker: Broker
  ledger: Pick<Ledger, 'claim'>
  clock: Clock
  log: Logger
  node(): string
  newId(): string
  /** False while this node may start nothing new (PROTOCOL 5). */
  mayStart(): boolean
  /** Rejections that are about one delivery, not about the ledger. */
  isBadRow(error: unknown): boolean
  /** Deliveries that one claim holds at most; by default 500. */
  maxClaim?: number
  /** Bytes of their bodies together, but for one that has more; by default any. */
  maxClaimBytes?: number
  /** Told how many tasks of a queue left the broker. */
  onClaimed?(queue: string, tasks: number): void
}

const MAX_CLAIM = 500
const UNREADABLE = 'Its headers cannot be read'
const RETRY_MS = 250
const SLOWEST_RETRY_MS = 5_000

/**
 * Through RabbitMQ: deliveries are claimed in batches, each under an id of its own, and asked for again until the ledger has
 * answered; what is not this node's to run ends at once.
 */
export function claimingIntake(deps: ClaimingDeps): Intake {
  return (queue, prefetch, take) => {
    const ended = new AbortController()
    const batcher = createBatcher<Delivery, Claimed | undefined>({
      maxBatch: deps.maxClaim ?? MAX_CLAIM,
      maxWaiting: Number.POSITIVE_INFINITY,
      weigh: ({ body }) => body.length,
      maxBatchWeight: deps.maxClaimBytes ?? Number.POSITIVE_INFINITY,
      splitOnError: deps.isBadRow,
      async run(deliveries) {
        const node = deps.node()
        const answers = await claimKnown(deps, queue, node, deliveries.map(claimOf), ended.signal)
        // Stopped, or declared dead meanwhile: what was claimed is in the ledger, and comes back by beats, leave or rescuers.
        const isOver = ended.signal.aborted || deps.node() !== node
        const ends = isOver ? [] : take(answers.flatMap((answer) => (answer?.kind === 'claimed' ? answer.task : [])))
        const unknown = deliveries.filter((_, index) => answers[index]?.kind === 'unknown')
        const kept = await keepUnknown(deps, queue, node, unknown, ended.signal)
        let taken = 0
        return deliveries.map((delivery, index) => {
          const answer = kept.has(delivery) ? kept.get(delivery) : answers[index]
          return answer && { end: answer.kind === 'claimed' ? ends[taken++] : undefined }
        })
      },
    })

    const end = async (delivery: Delivery): Promise<DeliveryEnd> => {
      const claimed = await batcher.add(delivery).catch((error) => {
        deps.log.error({ event: 'delivery-refused', queue, error: messageOf(error) }, 'The ledger refuses a delivery')
        return 'refused' as const
      })
      if (claimed === 'refused') return refused(deps, delivery, ended.signal)
      // Stopped before it was known: another node gets it, and the fence holds should it be claimed.
      if (claimed === undefined) return 'requeue'
      if (claimed.end === undefined) return 'ack'
      // What came from somebody else is the ledger's by now, whatever becomes of it (PROTOCOL 17): rejected or returned, a
      // message without an id of its own would come in a second time.
      if (identityOf(delivery).kind !== 'foreign') return claimed.end
      await claimed.end
      return 'ack'
    }

    const subscription = deps.broker.consume(queue, prefetch, (deliveries) => deliveries.map(end))
    return {
      setPrefetch: (next) => subscription.setPrefetch(next),
      cancel() {
        ended.abort()
        subscription.cancel()
      },
    }
  }
}

/** What the ledger cannot hold is kept where it can be read. A task it has already: no claim of it makes that dead. */
async function refused(
  { clock }: Pick<ClaimingDeps, 'clock'>,
  delivery: Delivery,
  signal: AbortSignal,
): Promise<DeliveryEnd> {
  if (identityOf(delivery).kind === 'foreign') return 'dead-letter'
  await pause(clock, SLOWEST_RETRY_MS, signal)
  return 'requeue'
}

/** What became of a delivery: this node's, until its end, or nobody's any more. In an object, so that nothing waits for it. */
interface Claimed {
  end: Promise<DeliveryEnd> | undefined
}

/** Makes dead letters of what names tasks that the ledger does not have; as `claimKnown`. */
async function keepUnknown(
  deps: ClaimingDeps,
  queue: string,
  node: string,
  unknown: Delivery[],
  signal: AbortSignal,
): Promise<Map<Delivery, ClaimAnswer | undefined>> {
  if (unknown.length === 0) return new Map()
  const answers = await claimKnown(deps, queue, node, unknown.map(unknownClaim), signal)
  return new Map(unknown.map((delivery, index) => [delivery, answers[index]]))
}

/** Claims until the ledger has answered; nothing for each when it has not and `signal` aborts. */
async function claimKnown(
  deps: ClaimingDeps,
  queue: string,
  node: string,
  deliveries: DeliveryClaim[],
  signal: AbortSignal,
): Promise<(ClaimAnswer | undefined)[]> {
  const { clock, ledger, log } = deps
  let claim: Claim = { claimId: deps.newId(), node, queue, deliveries }
  /** Since when it may have been claimed. */
  let askedAt: number | undefined
  const isLate = () => askedAt !== undefined && clock.now() - askedAt >= LIMITS.startKnownWithinMs
  for (let waitMs = RETRY_MS; ; waitMs = Math.min(SLOWEST_RETRY_MS, waitMs * 2)) {
    if (signal.aborted || deps.node() !== node) return deliveries.map(() => undefined)
    if (deps.mayStart()) {
      if (isLate()) {
        // What it took is not to be started any more: under another id that is a duplicate, and the rest is claimed.
        claim = { ...claim, claimId: deps.newId() }
        askedAt = undefined
      }
      askedAt ??= clock.now()
      try {
        const answers = await ledger.claim(claim)
        tellUnreadable(log, queue, deliveries, answers)
        const claimed = answers.filter(({ kind }) => kind === 'claimed').length
        if (claimed > 0) deps.onClaimed?.(queue, claimed)
        if (claimed === 0 || !isLate()) return answers
        log.warn({ event: 'claim-late', queue, tasks: claimed }, 'A claim took too long: its tasks are given back')
        return answers.map(unlessClaimed)
      } catch (error) {
        if (deps.isBadRow(error)) throw error
        log.warn({ event: 'claim-failed', queue, error: messageOf(error) }, 'Cannot claim deliveries; trying again')
      }
    }
    await pause(clock, waitMs, signal)
  }
}

/** What was claimed too late to be started is nobody's here: the beats give it back (PROTOCOL 3). */
function unlessClaimed(answer: ClaimAnswer): ClaimAnswer {
  return answer.kind === 'claimed' ? { kind: 'duplicate' } : answer
}

function claimOf(delivery: Delivery): DeliveryClaim {
  if (delivery.properties.headers?.[UNREADABLE_HEADER]) {
    return { kind: 'unreadable', ...readDeadStray(delivery, undefined, UNREADABLE), reason: UNREADABLE }
  }
  const identity = identityOf(delivery)
  if (identity.kind !== 'foreign') return identity
  const { reason, ...stray } = readStray(delivery)
  return reason === undefined ? { kind: 'foreign', ...stray } : { kind: 'unreadable', reason, ...stray }
}

/** Of a task that the ledger does not have, say after a restored backup (PROTOCOL 14). */
function unknownClaim(delivery: Delivery): DeliveryClaim {
  const identity = identityOf(delivery)
  const id = identity.kind === 'task' ? identity.id : undefined
  const named = identity.kind === 'copy' ? identity.parentId : id
  const reason = `The ledger has no task "${named}", which this message names: it was deleted, or is newer than the backup that was restored`
  return { kind: 'unreadable', ...readDeadStray(delivery, id, reason), reason }
}
