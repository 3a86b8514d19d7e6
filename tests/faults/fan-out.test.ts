import { expect, test } from 'bun:test'
import type { NodeProcess } from '../support/node-process.ts'
import { callManagement, HAS_RABBITMQ } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { onRabbitMq } from './on-rabbitmq.ts'

const FAN_OUTS = 3_000
const BATCH = 250
const VHOST = '%2F'
/** The same for all nodes, which are killed before they could tell their own. */
const KEY = { LONGSHORE_ADMIN_KEY: 'ls_fan_outs_admin_key_for_this_test' }

test.skipIf(!HAS_RABBITMQ)(
  '21: fan-outs lose no child and no copy of a foreign queue while publishing nodes and RabbitMQ are killed',
  async () => {
    await using on = await onRabbitMq()
    const { pool } = on.installation.database
    const manage = <T>(method: string, path: string, body?: unknown) =>
      callManagement<T>(on.rabbit.managementUrl, method, path, body)
    const front = await on.start({ ...KEY, LONGSHORE_ROLES: 'api' })
    const dispatcher = () => on.start({ ...KEY, LONGSHORE_ROLES: 'api,dispatcher,worker' })
    let nodes = await Promise.all([dispatcher(), dispatcher()])
    await setUp(front)
    const bound = () => manage('GET', `/exchanges/${VHOST}/all`).catch(() => undefined)
    await until(bound, { what: 'the exchange to be declared', timeoutMs: 60_000 })
    await manage('PUT', `/queues/${VHOST}/foreign`, { durable: true, arguments: { 'x-queue-type': 'quorum' } })
    await manage('POST', `/bindings/${VHOST}/e/all/q/foreign`, { routing_key: '', arguments: {} })
    await on.declared(['left', 'right', 'foreign'])

    const sending = submitAll(front)
    for (const [round, done] of [200, 900, 1_600].entries()) {
      const published = async () => {
        const { rows } = await pool.query(`select count(*)::int as n from tasks where exchange = 'all' and sealed`)
        return rows[0].n >= done
      }
      await until(published, { what: `${done} parents to be published`, timeoutMs: 150_000 })
      if (round === 1) {
        await on.rabbit.kill()
        await on.rabbit.start()
      } else {
        await nodes[0]?.kill()
        nodes = [nodes[1] as NodeProcess, await dispatcher()]
      }
    }
    const ids = await sending
    await on.quiet(240_000)

    expect(await front.call('GET', '/accounting')).toMatchObject({
      ...{ accepted: 3 * FAN_OUTS, succeeded: 3 * FAN_OUTS, unaccounted: 0 },
    })
    const { rows } = await pool.query(
      `select count(*)::int as children, count(distinct (parent_id, queue))::int as places from tasks
       where parent_id is not null`,
    )
    expect(rows).toEqual([{ children: 2 * FAN_OUTS, places: 2 * FAN_OUTS }])
    const copied = new Set<string>()
    for (;;) {
      const some = await manage<{ properties: { message_id: string } }[]>('POST', `/queues/${VHOST}/foreign/get`, {
        ...{ count: 1_000, ackmode: 'ack_requeue_false', encoding: 'auto' },
      })
      if (some.length === 0) break
      for (const { properties } of some) copied.add(properties.message_id)
    }
    expect(ids.filter((id) => !copied.has(id))).toEqual([])
    await Promise.all([front, ...nodes].map((node) => node.stop()))
  },
  600_000,
)

async function setUp(node: NodeProcess): Promise<void> {
  await node.call('PUT', '/exchanges/all', { type: 'fanout' })
  for (const queue of ['left', 'right']) {
    await node.call('PUT', `/queues/${queue}`, {})
    await node.call('POST', '/consumers', { queue, target: { type: 'noop' }, concurrency: 20 })
    await node.call('PUT', '/exchanges/all/bindings', { queue })
  }
}

async function submitAll(node: NodeProcess): Promise<string[]> {
  const accepted: string[] = []
  while (accepted.length < FAN_OUTS) {
    const tasks = Array.from({ length: BATCH }, (_, n) => ({ exchange: 'all', payload: { n: accepted.length + n } }))
    const { ids } = await node.call<{ ids: string[] }>('POST', '/tasks/batch', tasks)
    accepted.push(...ids)
  }
  return accepted
}
