import { createBatcher } from '../runtime/batcher.ts'
import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Ledger, Settled, Settlement } from '../task/ledger.ts'

export interface SettlerDeps {
  ledger: Pick<Ledger, 'settle'>
  clock: Clock
  log: Logger
  node(): string
  /** Told after the commit. */
  onSettled(settlement: Settlement, settled: Settled): void
  /** Rejections that are about one settlement, not about the database. */
  isBadRow(error: unknown): boolean
}

export interface Settler {
  /** Resolves after the commit, however long the database is away; never rejects. */
  settle(settlement: Settlement): Promise<Settled>
  /** Resolves when nothing waits to be settled. */
  idle(): Promise<void>
  /** Gives up what the ledger does not take now: it resolves as late, and the rescuers of other nodes find the tasks. */
  close(): void
}

const MAX_BATCH = 500
const RETRY_MS = 250
/** Many times what a node holds: settling is never refused. */
const MAX_WAITING = 1_000_000

/** Gathers outcomes and commits them in batches, again and again until the ledger has them. */
export function createSettler({ ledger, clock, log, node, onSettled, isBadRow }: SettlerDeps): Settler {
  const closed = new AbortController()
  const batcher = createBatcher<{ node: string; settlement: Settlement }, Settled>({
    maxBatch: MAX_BATCH,
    maxWaiting: MAX_WAITING,
    splitOnError: isBadRow,
    async run(batch) {
      const answers = new Map<Settlement, Settled>()
      // A node that came back under a new id still settles what its former self ended: late, and dropped.
      for (const [owner, items] of Map.groupBy(batch, (item) => item.node)) {
        const settlements = items.map((item) => item.settlement)
        const settled = await commit(owner, settlements)
        for (const [index, settlement] of settlements.entries())
          answers.set(settlement, settled[index] ?? late(settlement))
      }
      return batch.map(({ settlement }) => answers.get(settlement) ?? late(settlement))
    },
  })

  async function commit(owner: string, settlements: Settlement[]): Promise<Settled[]> {
    for (;;) {
      try {
        return await ledger.settle(owner, settlements)
      } catch (error) {
        if (isBadRow(error)) throw error
        log.warn(
          { event: 'settle-failed', tasks: settlements.length, error: messageOf(error) },
          'Cannot settle; trying again',
        )
        await pause(clock, RETRY_MS, closed.signal)
        if (closed.signal.aborted) return settlements.map(late)
      }
    }
  }

  /** An outcome that the ledger cannot hold becomes a failure that says so. */
  async function settleOrFail(settlement: Settlement): Promise<Settled> {
    const owner = node()
    try {
      return await batcher.add({ node: owner, settlement })
    } catch (error) {
      log.error(
        { event: 'outcome-refused', task: settlement.id, error: messageOf(error) },
        'The ledger refused an outcome',
      )
      const outcome = {
        kind: 'failed',
        retryable: false,
        error: `The outcome cannot be stored: ${messageOf(error)}`,
      } as const
      return refuse(owner, { ...settlement, outcome })
    }
  }

  /** When even the refusal is refused, the task stays running in the ledger, and the beats give it back. */
  function refuse(owner: string, settlement: Settlement): Promise<Settled> {
    return batcher.add({ node: owner, settlement }).catch((error) => {
      log.error({ event: 'task-stuck', task: settlement.id, error: messageOf(error) }, 'The ledger refuses a task')
      return late(settlement)
    })
  }

  return {
    async settle(settlement) {
      const settled = await settleOrFail(settlement)
      if (settled.late) {
        log.warn({
          event: 'outcome-late',
          task: settlement.id,
          attempt: settlement.attempt,
          outcome: settlement.outcome.kind,
        })
      }
      onSettled(settlement, settled)
      return settled
    },
    idle: () => batcher.idle(),
    close: () => closed.abort(),
  }
}

const late = ({ id }: Settlement): Settled => ({ id, late: true })
