import { expect, test } from 'bun:test'
import { makeQueue, reached, read, submit } from '../e2e/installation.ts'
import { HAS_RABBITMQ } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { onRabbitMq } from './on-rabbitmq.ts'

test.skipIf(!HAS_RABBITMQ)(
  'a quorum queue that has lost its leader for good says so, and when it is deleted it is made anew with its tasks',
  async () => {
    await using on = await onRabbitMq()
    const node = await on.start()
    for (const queue of ['work', 'other']) await makeQueue(node, queue)
    await on.declared(['work', 'other'])
    await on.rabbit.rabbitmqctl('eval', `ra:stop_server(quorum_queues, {'%2F_work', node()}).`)
    const id = await submit(node, { queue: 'work', payload: 1, target: { type: 'noop' } })
    const told = async () => {
      const { waitingFor } = await read(node, id)
      return waitingFor?.cause === 'broker-blocked' ? waitingFor.detail : undefined
    }
    const detail = await until(told, { what: 'the task to say so', timeoutMs: 60_000 })
    expect(detail).toContain('confirms no messages to queue "work"')
    const elsewhere = await submit(node, { queue: 'other', payload: 1, target: { type: 'noop' } })
    expect(await reached(node, elsewhere)).toMatchObject({ status: 'succeeded' })
    await on.rabbit.rabbitmqctl('delete_queue', 'work')
    expect(await reached(node, id, ['succeeded'], 120_000)).toMatchObject({ attempt: 1 })
    await node.stop()
  },
  300_000,
)
