import { type AMQPChannel, AMQPClient } from '@cloudamqp/amqp-client'
import type { TestVhost } from './rabbitmq.ts'

/** An AMQP client that knows nothing of Longshore. Its end closes its connection. */
export interface ForeignClient extends AsyncDisposable {
  readonly channel: AMQPChannel
}

export async function foreignClient({ amqpUrl }: Pick<TestVhost, 'amqpUrl'>): Promise<ForeignClient> {
  const client = new AMQPClient(`${amqpUrl}?frameMax=131072`)
  await client.connect()
  return { channel: await client.channel(), [Symbol.asyncDispose]: () => client.close() }
}
