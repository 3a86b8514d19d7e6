import type { Pool } from 'pg'
import { reached } from './load.ts'
import type { BenchNode } from './node.ts'

const FINISHED_COUNT = `select count(*) as n from (
  select from tasks where queue = $1 and status = 'succeeded' limit $2) t`
const FINISH_RATE = `select count(*) / extract(epoch from max(finished_at) - min(started_at)) as n
  from tasks where queue = $1 and status = 'succeeded'`

/** Gives a queue a consumer and waits until `count` of its tasks have succeeded; gives tasks a second by Postgres's clock. */
export async function drainQueue(
  node: BenchNode,
  pool: Pool,
  queue: string,
  consumer: object,
  count: number,
): Promise<number> {
  const { id } = await node.call<{ id: string }>('POST', '/consumers', { queue, ...consumer })
  await finished(pool, queue, count)
  await node.call('DELETE', `/consumers/${id}`)
  return Number((await pool.query(FINISH_RATE, [queue])).rows[0]?.n)
}

/** Asks for the count in Postgres rather than over HTTP, so that asking costs next to nothing. */
function finished(pool: Pool, queue: string, count: number): Promise<void> {
  return reached(async () => Number((await pool.query(FINISHED_COUNT, [queue, count])).rows[0]?.n) >= count)
}

const PACED = 2_000
const EVERY_MS = 5

/** Submits 200 tasks a second for ten seconds to a queue with a consumer; milliseconds from each call to its outcome. */
export async function latencies(node: BenchNode, pool: Pool, queue: string): Promise<number[]> {
  const sent = new Map<string, number>()
  const calls: Promise<void>[] = []
  const began = performance.now()
  for (let n = 0; n < PACED; n++) {
    await Bun.sleep(Math.max(0, began + n * EVERY_MS - performance.now()))
    const at = performance.timeOrigin + performance.now()
    calls.push(
      node
        .call<{ id: string }>('POST', '/tasks', { queue, type: 'bench', payload: { n } })
        .then(({ id }) => void sent.set(id, at)),
    )
  }
  await Promise.all(calls)
  await finished(pool, queue, PACED)
  const { rows } = await pool.query<{ id: string; at: string }>(
    'select id, extract(epoch from finished_at) * 1000 as at from tasks where queue = $1',
    [queue],
  )
  return rows.map(({ id, at }) => Number(at) - (sent.get(id) ?? Number.NaN))
}
