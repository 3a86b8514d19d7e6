import type { WantedTopology } from '../../../store/topology/ensure.ts'
import type { BrokerKind } from '../../../task/ledger.ts'
import type { ConsumerTarget } from '../../../task/target/target.ts'

export const EXCHANGE = 'fanout_exchange'
export const SINKS = { db: 'job_db_updates_queue', csv: 'job_csv_updates_queue' } as const
const NOTIFICATIONS = 'notification_queue'

/** The table that the database sink writes to. */
export const JOBS_TABLE = {
  name: 'jobs_done',
  columns: [
    ['id', 'uuid primary key'],
    ['type', 'text not null'],
    ['payload', 'jsonb'],
    ['done_at', 'timestamptz not null default now()'],
  ],
} as const

/** As the older services declare them: durable, and nothing else. */
const AS_DECLARED = { type: 'classic', deadLetter: false } as const

/** How the end of a job is told to others. */
const WORDS = { succeeded: 'COMPLETED', dead: 'FAILED', cancelled: 'FAILED' }

function sink(target: ConsumerTarget): WantedTopology['queues'][number]['consumers'] {
  return [{ target, concurrency: 20, timeoutMs: 30_000, paused: false }]
}

/**
 * What a job needs. Other services take notifications from the broker and never report, so there the confirm finishes
 * them; in-process nobody else can take them, and they are done when they are recorded.
 */
export function jobTopology(broker: BrokerKind): WantedTopology {
  const notifications =
    broker === 'in-process'
      ? { name: NOTIFICATIONS, policy: AS_DECLARED, consumers: sink({ type: 'noop' }) }
      : { name: NOTIFICATIONS, policy: { ...AS_DECLARED, settlement: 'confirm' as const }, consumers: [] }
  return {
    queues: [
      { name: SINKS.db, policy: AS_DECLARED, consumers: sink({ type: 'table', table: JOBS_TABLE.name }) },
      {
        name: SINKS.csv,
        policy: AS_DECLARED,
        consumers: sink({ type: 'csv', path: 'job_status.csv', columns: ['id', 'type', 'payload'] }),
      },
      notifications,
    ],
    exchange: {
      name: EXCHANGE,
      type: 'fanout',
      bindings: Object.values(SINKS).map((queue) => ({ queue, routingKey: '' })),
      completions: { queue: NOTIFICATIONS, words: WORDS },
    },
  }
}
