import { expect, test } from 'bun:test'
import type { NodeState } from '../../src/task/ledger.ts'
import { HAS_RABBITMQ, testVhost } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { startWorkerProcess, workKey } from '../support/worker-process.ts'
import { install } from './installation.ts'

const LIMIT = { count: 5, per: '1s', burst: 2 }
const PER_MS = LIMIT.count / 1_000
/** Two nodes and a worker, each with one task of the consumer at a time. */
const SLOTS = 3
/** The bucket is filled by Postgres's clock, and starts are told by ours: half a token for what they run apart. */
const CLOCKS = 0.5

interface ShownNode {
  beatAt: string
  status: string
  state: NodeState
}

/*
 * No slowness can break these bounds, because they count from an instant at which it is known how many tokens were out. A
 * token that was granted late or used late only moves a start to later:
 * - From a moment at which nothing is in hand, each start needs a token that is granted after it. So the nth start comes
 *   when the burst and what time has brought since make n tokens, or later.
 * - In a stretch that begins at any start, some tokens may have been granted before it and been under way. A process asks for
 *   as many as it can start at once, so these are one a slot at most.
 */
const tooEarly = (starts: number[], begin: number) =>
  starts.filter((at, index) => index + 1 > LIMIT.burst + (at - begin) * PER_MS + CLOCKS)
const tooDense = (starts: number[]) =>
  starts.flatMap((from, first) =>
    starts
      .slice(first)
      .flatMap((to, more) =>
        more + 1 > LIMIT.burst + SLOTS + (to - from) * PER_MS + CLOCKS ? [`${more + 1} in ${to - from} ms`] : [],
      ),
  )

test.skipIf(!HAS_RABBITMQ)(
  'two nodes and a worker without a database together start no more than their consumer’s rate and burst allow',
  async () => {
    await using vhost = await testVhost()
    await using installation = await install('server')
    await using sink = await startSink()
    const start = (dir: string) =>
      installation.start({
        ...{ AMQP_URL: vhost.amqpUrl, DATA_DIR: `${installation.path}/${dir}`, WORKER_THREADS: '1' },
        LONGSHORE_ADMIN_KEY: 'ls_rate_limit_admin_key_for_this_test',
      })
    const [node, other] = await Promise.all([start('one'), start('other')])
    const worker = await startWorkerProcess(installation, {
      ...{ server: await node.listening, key: await workKey(node), amqpUrl: vhost.amqpUrl },
      env: { WORKER_THREADS: '1' },
    })
    await node.call('PUT', '/queues/limited', {})
    const target = { type: 'http', url: sink.url() }
    await node.call('POST', '/consumers', { queue: 'limited', target, concurrency: 1, rateLimit: LIMIT })
    const ready = async () => {
      const { items } = await node.call<{ items: ShownNode[] }>('GET', '/nodes')
      return items.filter(({ state }) => state.consumers.some(({ queue }) => queue === 'limited')).length === SLOTS
    }
    await until(ready, { what: 'all three to consume', timeoutMs: 60_000 })
    const consumed = async () =>
      (await vhost.manage<{ consumers?: number }>('GET', `/queues/${vhost.name}/limited`)).consumers === SLOTS
    await until(consumed, { what: 'the broker to have all three', timeoutMs: 60_000 })

    const { pool } = installation.database
    let submitted = 0
    const wave = async (count: number) => {
      const begin = performance.timeOrigin + performance.now()
      submitted += count
      await node.call(
        'POST',
        '/tasks/batch',
        Array.from({ length: count }, (_, n) => ({ queue: 'limited', payload: { n } })),
      )
      const isOver = async () => {
        const { rows } = await pool.query(`select count(*)::int as n from tasks where status = 'succeeded'`)
        return rows[0].n === submitted
      }
      await until(isOver, { what: `${submitted} tasks to have succeeded`, timeoutMs: 90_000 })
      const starts = sink.requests.slice(submitted - count).map(({ startedAt }) => startedAt)
      expect(starts).toHaveLength(count)
      expect({ early: tooEarly(starts, begin), dense: tooDense(starts) }).toEqual({ early: [], dense: [] })
    }
    await wave(4)
    // Meanwhile time brings more tokens than the burst, which is all that may be kept of them.
    const quiet = Date.now()
    const idle = async () => {
      const { items } = await node.call<{ items: ShownNode[] }>('GET', '/nodes')
      return items.every(({ beatAt }) => Date.parse(beatAt) > quiet)
    }
    await until(idle, { what: 'the next beat of all three', timeoutMs: 40_000 })
    await wave(30)

    // A task that waits five seconds for a token is given back, which spends an attempt's number and no failure.
    const { rows } = await pool.query<{ nodes: number; failures: number }>(
      `select count(distinct a.value ->> 'node')::int as nodes, max(t.failures)::int as failures
       from tasks t, jsonb_array_elements(t.attempts) a`,
    )
    expect(rows).toEqual([{ nodes: SLOTS, failures: 0 }])
    expect(await node.call('GET', '/accounting')).toMatchObject({ accepted: submitted, live: 0, unaccounted: 0 })
    await worker.stop()
    await Promise.all([node.stop(), other.stop()])
  },
  300_000,
)
