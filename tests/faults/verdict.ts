import type { Pool } from 'pg'
import type { Sink, SinkRequest } from '../support/sink.ts'
import type { Expected } from './traffic.ts'

interface Row {
  id: string
  key: string
  status: string
  attempts: { number: number; outcome: string }[]
}

/** What may not be: each list names the tasks that it holds of. */
export interface Verdict {
  /** Answered as accepted and not in the ledger, or succeeded there and never delivered. */
  missing: string[]
  /** Two attempts of one task were open at the sink at the same time. */
  doubledAtOnce: string[]
  /** One attempt number reached the sink twice. */
  repeatedAttempts: string[]
  /** One idempotency key has two tasks, or was answered with two ids. */
  doubledTasks: string[]
  /** Not final although everybody had the time. */
  neverFinal: string[]
  /** Ended otherwise than it had to. */
  otherwise: string[]
  /** The accounts do not come out even. */
  unaccounted: number
}

export const NOTHING_WRONG: Verdict = {
  missing: [],
  doubledAtOnce: [],
  repeatedAttempts: [],
  doubledTasks: [],
  neverFinal: [],
  otherwise: [],
  unaccounted: 0,
}

const FINAL = ['succeeded', 'dead', 'cancelled']

/** Compares what was sent with what the ledger says and what the sink saw. */
export async function judge(pool: Pool, expected: Expected[], sink: Sink): Promise<Verdict> {
  const { rows } = await pool.query<Row>(
    'select id, idempotency_key as key, status, attempts from tasks where idempotency_key is not null',
  )
  const rowsByKey = Map.groupBy(rows, (row) => row.key)
  const requests = Map.groupBy(sink.requests, (request) => request.task)
  const verdict: Verdict = structuredClone(NOTHING_WRONG)
  for (const { key, id, status, delivered, doubled } of expected) {
    const found = rowsByKey.get(key) ?? []
    const [row] = found
    if (found.length > 1 || doubled) verdict.doubledTasks.push(key)
    if (!row) {
      if (id !== undefined) verdict.missing.push(`${key} (${id}): not in the ledger`)
      continue
    }
    if (id !== undefined && row.id !== id) verdict.missing.push(`${key} (${id}): the ledger has ${row.id}`)
    if (!FINAL.includes(row.status)) verdict.neverFinal.push(`${key} (${row.id}): ${row.status}`)
    else if (row.status !== status) verdict.otherwise.push(`${key} (${row.id}): ${row.status} instead of ${status}`)
    const numbers = (requests.get(row.id) ?? []).map((request) => request.attempt)
    const last = row.attempts.findLast(({ outcome }) => outcome === 'succeeded' || outcome === 'failed')
    if (delivered && FINAL.includes(row.status) && !numbers.includes(last?.number ?? 0))
      verdict.missing.push(`${key} (${row.id}): ${row.status} and never delivered`)
  }
  for (const [task, all] of requests) {
    if (new Set(all.map((request) => request.attempt)).size < all.length)
      verdict.repeatedAttempts.push(`${task}: ${story(all)}`)
    if (all.some((request, index) => all.slice(index + 1).some((other) => overlap(request, other))))
      verdict.doubledAtOnce.push(`${task}: ${story(all)}`)
  }
  const { rows: accounts } = await pool.query<{ n: number }>(
    `select (select coalesce(sum(accepted) - sum(pruned), 0) from counters)::int - (select count(*) from tasks)::int as n`,
  )
  verdict.unaccounted = accounts[0]?.n ?? Number.NaN
  return verdict
}

/** Requests come in the order of their start. One whose node was killed ends when its connection closes. */
function overlap(earlier: SinkRequest, later: SinkRequest): boolean {
  return later.startedAt < (earlier.endedAt ?? Number.POSITIVE_INFINITY)
}

function story(requests: SinkRequest[]): string {
  return requests
    .map(({ attempt, startedAt, endedAt }) => `attempt ${attempt} from ${startedAt} to ${endedAt ?? 'now'}`)
    .join(', ')
}

/** How many tasks of the ledger are not final. */
export async function liveTasks(pool: Pool): Promise<number> {
  const { rows } = await pool.query<{ n: number }>(
    `select count(*)::int as n from tasks where status not in ('succeeded', 'dead', 'cancelled')`,
  )
  return rows[0]?.n ?? Number.NaN
}
