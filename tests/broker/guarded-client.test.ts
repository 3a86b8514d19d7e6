import { expect, test } from 'bun:test'
import { GuardedClient } from '../../src/broker/rabbitmq/connection/guarded-client.ts'
import { parseAmqpUrl } from '../../src/runtime/amqp-url.ts'
import { turns } from '../support/services.ts'

test('a send that fails is told to who waits for it, and is no bug where the library does not wait', async () => {
  const address = parseAmqpUrl('amqp://127.0.0.1:1')
  const client = new GuardedClient({ address, name: 'test', heartbeatSeconds: 1 })
  const unhandled: unknown[] = []
  const note = (error: unknown) => unhandled.push(error)
  process.on('unhandledRejection', note)
  try {
    void client.send(new Uint8Array(1))
    await expect(client.send(new Uint8Array(1))).rejects.toThrow('Socket not connected')
    // Rejections that nobody took are told at the end of a turn.
    await turns()
    expect(unhandled).toEqual([])
  } finally {
    process.off('unhandledRejection', note)
  }
})
