import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { HAS_RABBITMQ, testVhost } from '../support/rabbitmq.ts'
import { describeBroker } from './broker.conformance.ts'
import { brokerAt, isUp } from './rabbitmq-under-test.ts'

describeBroker('in-process', 'classic', async () => {
  const broker = createInProcessBroker()
  await broker.start()
  return {
    broker,
    async reopen() {
      await broker.stop()
      return broker
    },
    close: () => broker.stop(),
  }
})

for (const type of HAS_RABBITMQ ? (['classic', 'quorum'] as const) : []) {
  describeBroker('RabbitMQ', type, async () => {
    const vhost = await testVhost()
    let under = await brokerAt(vhost.amqpUrl)
    await isUp(under.broker)
    return {
      broker: under.broker,
      async reopen() {
        await under.broker.stop()
        under = await brokerAt(vhost.amqpUrl)
        await isUp(under.broker)
        return under.broker
      },
      async close() {
        await under.broker.stop()
        await vhost.remove()
      },
    }
  })
}
