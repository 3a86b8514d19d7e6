import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { readAccounting } from '../../store/accounting.ts'
import type { Database } from '../../store/database/database.ts'
import { STATUSES } from '../../task/status.ts'
import type { Access } from '../access.ts'
import { cached } from '../cached.ts'
import { describe } from '../openapi/describe.ts'

const Count = (description: string) => Type.Integer({ description })

const AccountingSchema = Type.Object({
  accepted: Count('Tasks that were ever accepted, as counted in the transactions that inserted them'),
  succeeded: Count('Counted now'),
  dead: Count('Counted now'),
  cancelled: Count('Counted now'),
  live: Count('Not final, counted now'),
  pruned: Count('Deleted after their retention or by request'),
  unaccounted: Count('accepted - succeeded - dead - cancelled - live - pruned; anything but 0 is a fault'),
  byStatus: Type.Object(Object.fromEntries(STATUSES.map((status) => [status, Type.Integer()]))),
  overdue: Type.Object(
    {
      'queue-paused': Type.Integer(),
      'no-consumer': Type.Integer(),
      'consumer-paused': Type.Integer(),
      other: Type.Integer(),
    },
    { description: 'Tasks that wait although they were due more than a minute ago, by reason' },
  ),
})

const EXAMPLE = {
  accepted: 1000,
  succeeded: 890,
  dead: 3,
  cancelled: 2,
  live: 5,
  pruned: 100,
  unaccounted: 0,
  byStatus: { pending: 2, queued: 0, running: 2, retrying: 1, succeeded: 890, dead: 3, cancelled: 2 },
  overdue: { 'queue-paused': 0, 'no-consumer': 0, 'consumer-paused': 0, other: 0 },
}

export function accountingRoutes(access: Access, { db }: { db: Database['db'] }) {
  // A recount reads every task: callers at the same time share one.
  const read = cached(() => readAccounting(db))
  return new Elysia({ prefix: '/accounting' }).use(access).get('/', () => read(), {
    scope: 'read',
    detail: describe({
      tag: 'Accounting',
      summary: 'Prove that nothing is lost',
      description:
        'accepted = succeeded + dead + cancelled + live + pruned, from the counters and a recount of all tasks in one snapshot, at most five seconds old.',
      responses: { 200: ['The accounts', AccountingSchema, EXAMPLE] },
    }),
  })
}
