import { type BROKERS, testVhost } from './rabbitmq.ts'

/** A broker for the nodes of one test; its end removes what they left in it. */
export interface TestBroker extends AsyncDisposable {
  /** What makes a node use it. */
  readonly env: Record<string, string>
}

export async function testBroker(kind: (typeof BROKERS)[number]): Promise<TestBroker> {
  switch (kind) {
    case 'in-process':
      return { env: {}, async [Symbol.asyncDispose]() {} }
    case 'rabbitmq': {
      const vhost = await testVhost()
      return { env: { AMQP_URL: vhost.amqpUrl }, [Symbol.asyncDispose]: () => vhost.remove() }
    }
    default:
      return kind satisfies never
  }
}
