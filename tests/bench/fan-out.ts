import type { Pool } from 'pg'
import { fill, reached } from './load.ts'
import type { BenchNode } from './node.ts'
import type { Note } from './report.ts'

const FAN_OUTS = 20_000
const QUEUES = ['fan-left', 'fan-right']

/** Tasks that an exchange brings to two queues, each with a child and all with a parent that waits for them. */
export async function benchFanOuts(node: BenchNode, pool: Pool, note: Note): Promise<void> {
  await node.call('PUT', '/exchanges/fan', { type: 'fanout' })
  for (const queue of QUEUES) {
    await node.call('PUT', `/queues/${queue}`, {})
    await node.call('PUT', '/exchanges/fan/bindings', { queue })
  }
  const submitted = await fill(node, { exchange: 'fan' }, FAN_OUTS)
  note('submit fan-outs to 2 queues in batches of 1,000', submitted, 'fan-outs/s', { least: 5_000 })
  for (const queue of QUEUES)
    await node.call('POST', '/consumers', { queue, target: { type: 'noop' }, concurrency: 50 })
  const done = async (text: string) => Number((await pool.query(text, [FAN_OUTS])).rows[0]?.n)
  await reached(async () => (await done(SUCCEEDED)) >= FAN_OUTS)
  note(`drain ${FAN_OUTS.toLocaleString('en')} of them`, await done(RATE), 'fan-outs/s')
}

const SUCCEEDED = `select count(*) as n from (
  select from tasks where queue = 'exchange/fan' and status = 'succeeded' limit $1) t`
/** From the first child's start to the last parent's end. */
const RATE = `select $1 / extract(epoch from max(p.finished_at) - min(c.started_at)) as n
  from tasks p join tasks c on c.parent_id = p.id where p.queue = 'exchange/fan'`
