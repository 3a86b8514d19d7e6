import type { Pool } from 'pg'
import type { Report } from '../task/executor.ts'
import type { Ledger } from '../task/ledger.ts'
import { LIMITS } from '../task/limits.ts'
import type { RetryPolicy } from '../task/retry-policy.ts'
import { hold, release } from './database/locks.ts'
import { repeated } from './database/statement.ts'
import { beatNode } from './nodes.ts'
import { claimDeliveries } from './tasks/claim/claim-deliveries.ts'
import { settleTasks } from './tasks/settle.ts'
import { takeTokens } from './topology/tokens.ts'

/** The ledger itself, for nodes with a database. */
export function createStoreLedger(pool: Pool, retryOf: (queue: string) => RetryPolicy): Ledger {
  return {
    claim: (claim) => claimDeliveries(pool, claim),
    settle: (node, settlements) => settleTasks(pool, node, settlements, retryOf),
    beat: (beat) => beatNode(pool, beat),
    report: (node, reports) => writeReports(pool, node, reports),
    takeTokens: (consumer, count) => takeTokens(pool, consumer, count),
    hold: (node, name) => hold(pool, node, name),
    release: (node, name) => release(pool, node, name),
  }
}

/** Adds log lines and replaces progress of running attempts of `node`; the last lines are kept. */
async function writeReports(pool: Pool, node: string, reports: Report[]): Promise<void> {
  // Newest first: the order in which tasks are locked everywhere.
  const sorted = [...reports].sort((a, b) => (a.id < b.id ? 1 : -1))
  const write = () =>
    pool.query(
      `update tasks t
     set progress = coalesce(r.progress::json, t.progress),
       logs = case when r.lines = '[]' then t.logs else (
         select jsonb_agg(line order by n) from (
           select line, n from jsonb_array_elements(coalesce(t.logs, '[]') || r.lines::jsonb) with ordinality as l(line, n)
           order by n desc limit ${LIMITS.logLines}
         ) kept) end
     from unnest($1::uuid[], $2::int[], $3::text[], $4::text[]) as r(id, attempt, progress, lines)
     where t.id = r.id and t.status = 'running' and t.attempt = r.attempt and t.node = $5`,
      [
        sorted.map((report) => report.id),
        sorted.map((report) => report.attempt),
        sorted.map((report) => (report.progress ? JSON.stringify(report.progress) : null)),
        sorted.map((report) => JSON.stringify(report.lines)),
        node,
      ],
    )
  await repeated(write)
}
