import { expect, test } from 'bun:test'
import type { NodeProcess } from '../support/node-process.ts'
import { type Family, parsePrometheus, total } from '../support/prometheus.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, submit } from './installation.ts'

async function scrape(node: NodeProcess): Promise<{ families: Map<string, Family>; ms: number }> {
  const startedAt = performance.now()
  const response = await fetch(`${await node.listening}/metrics`, { headers: node.headers() })
  const text = await response.text()
  const ms = performance.now() - startedAt
  expect(response.status).toBe(200)
  expect(response.headers.get('content-type')).toStartWith('text/plain; version=0.0.4')
  return { families: parsePrometheus(text), ms }
}

test('the counters agree with the accounting, and every part of a node tells how it does', async () => {
  await using home = await install('server')
  await using sink = await startSink()
  sink.reply = ({ path, attempt }) => ({
    status: path === '/broken' ? 500 : path === '/later' && attempt === 1 ? 503 : 200,
  })
  const node = await home.start()
  await makeQueue(node, 'quick', { maxAttempts: 2 })
  const to = (path: string) => ({ queue: 'quick', payload: 1, target: { type: 'http', url: sink.url(path) } })
  const ids: string[] = []
  for (const path of ['/ok', '/ok', '/ok', '/later', '/broken']) ids.push(await submit(node, to(path)))
  await node.call(
    'POST',
    '/tasks/batch',
    Array.from({ length: 20 }, () => ({ queue: 'quick', payload: 2, target: { type: 'noop' } })),
  )
  for (const id of ids) await reached(node, id)
  const accounting = await until(
    async () => {
      const now = await node.call<Record<string, number>>('GET', '/accounting')
      return now.live === 0 && now.accepted === 25 ? now : undefined
    },
    { what: 'every task to be final', timeoutMs: 30_000 },
  )
  // The cluster's figures are up to five seconds old.
  const { families } = await until(
    async () => {
      const seen = await scrape(node)
      const [accepted, dead] = [
        total(seen.families, 'longshore_tasks_accepted_total'),
        total(seen.families, 'longshore_queue_tasks', { queue: 'quick', status: 'dead' }),
      ]
      // An end is visible in the ledger before its node has counted it.
      const settled = total(seen.families, 'longshore_batch_tasks_sum', { step: 'settle' })
      return accepted === 25 && dead === 1 && settled === 27 ? seen : undefined
    },
    { what: 'the counters to be read again', timeoutMs: 30_000 },
  )
  const finished = (labels: Record<string, string>) => total(families, 'longshore_attempts_finished_total', labels)
  expect(finished({ queue: 'quick', status: 'succeeded', outcome: 'succeeded' })).toBe(accounting.succeeded as number)
  expect(finished({ queue: 'quick', status: 'dead', outcome: 'failed' })).toBe(accounting.dead as number)
  expect(finished({ queue: 'quick', status: 'retrying', outcome: 'failed' })).toBe(2)
  expect(total(families, 'longshore_retries_total', { queue: 'quick' })).toBe(2)
  expect(total(families, 'longshore_outcomes_late_total')).toBe(0)
  for (const histogram of ['longshore_task_wait_seconds', 'longshore_task_run_seconds']) {
    expect(total(families, `${histogram}_count`, { queue: 'quick' })).toBe(27)
  }
  expect(total(families, 'longshore_batch_tasks_sum', { step: 'submit' })).toBe(25)
  expect(total(families, 'longshore_batch_tasks_sum', { step: 'claim' })).toBe(27)
  expect(total(families, 'longshore_batch_tasks_sum', { step: 'settle' })).toBe(27)
  expect(total(families, 'longshore_queue_tasks', { queue: 'quick', status: 'dead' })).toBe(1)
  expect(total(families, 'longshore_nodes', { status: 'alive' })).toBe(1)
  expect(total(families, 'longshore_node_beat_age_seconds')).toBeLessThan(15)
  expect(total(families, 'longshore_database_up')).toBe(1)
  expect(total(families, 'longshore_database_connections')).toBeGreaterThan(0)
  expect(total(families, 'longshore_broker_up')).toBe(1)
  expect(total(families, 'longshore_threads', { state: 'ready' })).toBeGreaterThan(0)
  expect(total(families, 'process_resident_memory_bytes')).toBeGreaterThan(1e7)
  const requests = (labels: Record<string, string>) => total(families, 'longshore_http_requests_total', labels)
  expect(requests({ route: '/api/v1/tasks', method: 'POST', status_class: '2xx' })).toBe(5)
  expect(requests({ route: '/api/v1/tasks/batch', method: 'POST', status_class: '2xx' })).toBe(1)
  expect(requests({ route: '/api/v1/tasks/:id', method: 'GET' })).toBeGreaterThan(4)
  await node.stop()
}, 150_000)

test('whoever asks for what does not exist makes no series, and a name of any kind is told as it is', async () => {
  await using home = await install('server')
  const node = await home.start()
  for (let n = 0; n < 20; n++) await node.request('GET', `/nothing/${n}`)
  await node.request('PUT', '/queues/a.b-c:d_1', {})
  const { families } = await scrape(node)
  const routes = new Set(families.get('longshore_http_requests_total')?.samples.map(({ labels }) => labels.route))
  expect(routes.has('unknown')).toBe(true)
  expect([...routes].filter((route) => route?.includes('nothing'))).toEqual([])
  expect((await fetch(`${await node.listening}/metrics`)).status).toBe(401)
  await node.stop()
}, 150_000)

test('a RabbitMQ that is not there is told', async () => {
  await using home = await install('server')
  const node = await home.start({ AMQP_URL: 'amqp://127.0.0.1:1' })
  const { families } = await scrape(node)
  expect(total(families, 'longshore_broker_up')).toBe(0)
  expect(total(families, 'longshore_broker_blocked')).toBe(0)
  await node.stop()
}, 150_000)

test('a scrape takes less than 50 ms while the node works as fast as it can', async () => {
  await using home = await install('server')
  const node = await home.start()
  await node.call('PUT', '/queues/load', {})
  const batch = Array.from({ length: 5_000 }, () => ({ queue: 'load', payload: 1 }))
  for (let n = 0; n < 6; n++) await node.call('POST', '/tasks/batch', batch)
  await node.call('POST', '/consumers', { queue: 'load', target: { type: 'noop' }, concurrency: 50 })
  const took: number[] = []
  let last: Map<string, Family>
  do {
    const { ms, families } = await scrape(node)
    took.push(ms)
    last = families
  } while (total(last, 'longshore_attempts_finished_total') < 30_000 && took.length < 10_000)
  expect(took.length).toBeGreaterThan(5)
  const sorted = took.sort((a, b) => a - b)
  console.log(`scrapes under load: median ${sorted[sorted.length >> 1]?.toFixed(1)} ms, of ${took.length}`)
  // What else this machine does is no cost of a scrape: the quickest tenth tells.
  expect(sorted[Math.floor(sorted.length / 10)]).toBeLessThan(50)
  await node.stop()
}, 150_000)
