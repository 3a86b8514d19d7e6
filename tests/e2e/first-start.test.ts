import { expect, test } from 'bun:test'
import { ENGINES } from '../support/database.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { install } from './installation.ts'

const consumersOf = async (node: NodeProcess) =>
  (await node.call<{ items: { id: string }[] }>('GET', '/consumers?queue=default')).items

for (const engine of ENGINES) {
  test(`${engine}: the first start makes the queue "default" with its consumer, and what somebody takes away or changes stays so`, async () => {
    await using home = await install(engine)
    const first = await home.start()
    expect(await first.call('GET', '/queues/default')).toMatchObject({
      type: 'quorum',
      window: null,
      settlement: 'outcome',
      deadLetter: true,
      paused: false,
      retention: { succeeded: '7d', cancelled: '7d', dead: '90d' },
    })
    const made = await consumersOf(first)
    expect(made).toMatchObject([{ target: { type: 'task' }, concurrency: 50, timeout: '30s', paused: false }])
    await first.call('DELETE', `/consumers/${made[0]?.id}`)
    await first.call('PUT', '/queues/default', { window: 7 })
    await first.stop()

    const second = await home.start()
    expect(await consumersOf(second)).toEqual([])
    expect(await second.call('GET', '/queues/default')).toMatchObject({ window: 7 })
    await second.stop()
  }, 150_000)
}

if (ENGINES.includes('server')) {
  test('two nodes that start at once make the queue "default" with one consumer', async () => {
    await using home = await install('server')
    const nodes = await Promise.all([home.start(), home.start()])
    for (const node of nodes) expect(await consumersOf(node)).toHaveLength(1)
    for (const node of nodes) await node.stop()
  }, 150_000)
}
