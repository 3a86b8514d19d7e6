import type { Pool } from 'pg'
import type { Clock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import { KEPT_DAYS } from '../kept-days.ts'
import { stateOf } from './failure.ts'
import { appliedTable, createApplied, ensureApplied, pruneApplied } from './statements.ts'

const PRUNE_EVERY_MS = 60_000
const PRUNE_WITHIN_MS = 5_000
const PRUNE_ROWS = 1_000

/** The table of applied tasks in each schema that is written. */
export interface Notes {
  /** Makes sure that it is there; asks the database once. Rejects with what an operator has to do. */
  ensure(pool: Pool, schema: string): Promise<void>
  /** Looks again before the next use: it may have gone with its schema. */
  forget(schema: string): void
  /** Forgets old tasks, at most once a minute and for five seconds, beside the work. */
  pruneSometimes(pool: Pool, schema: string): void
}

/** With `withSchema` a missing schema is made, too. */
export function createNotes({ withSchema, clock }: { withSchema: boolean; clock: Clock }): Notes {
  const made = new Map<string, Promise<void>>()
  const pruned = new Map<string, number>()

  async function prune(pool: Pool, schema: string): Promise<void> {
    const begun = clock.now()
    while (clock.now() - begun < PRUNE_WITHIN_MS) {
      if ((await pruneApplied(pool, schema, KEPT_DAYS, PRUNE_ROWS)) < PRUNE_ROWS) return
    }
  }

  return {
    async ensure(pool, schema) {
      let making = made.get(schema)
      if (!making) {
        making = ensureApplied(pool, schema, withSchema).catch((cause: unknown) => {
          made.delete(schema)
          throw cannotMake(schema, cause)
        })
        made.set(schema, making)
      }
      await making
    },
    forget: (schema) => void made.delete(schema),
    pruneSometimes(pool, schema) {
      const now = clock.now()
      if (now - (pruned.get(schema) ?? Number.NEGATIVE_INFINITY) < PRUNE_EVERY_MS) return
      pruned.set(schema, now)
      // What cannot be pruned now is harmless, and is tried again in a minute.
      prune(pool, schema).catch(() => {})
    },
  }
}

/** Keeps the database's own error as it is where the way to it is at fault. */
function cannotMake(schema: string, cause: unknown): unknown {
  if (stateOf(cause) !== '42501' && stateOf(cause) !== '3F000') return cause
  const why = `Cannot make ${appliedTable(schema)}, which notes whose rows are in: ${messageOf(cause)}. Have it made with: ${createApplied(schema)}`
  return new Error(why, { cause })
}
