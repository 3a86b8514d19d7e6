/**
 * The RabbitMQ that tests share, beside the broker inside the process. As a command: starts one, prints its addresses as
 * `TEST_AMQP_URL` and `TEST_RABBITMQ_MANAGEMENT_URL`, and ends it when it is interrupted.
 */
import { rabbitMqPrograms, startRabbitMqServer } from '../tests/support/rabbitmq-server.ts'

export interface BrokerEngine {
  /** What tests find it by. */
  env: { TEST_AMQP_URL: string; TEST_RABBITMQ_MANAGEMENT_URL: string }
  end(): Promise<void>
}

/**
 * Finds a RabbitMQ: `TEST_AMQP_URL` with `TEST_RABBITMQ_MANAGEMENT_URL` (a user of both that may make vhosts), else starts
 * one of its own on free ports, where RabbitMQ is installed; it ends with this process at the latest.
 */
export async function brokerEngine(): Promise<BrokerEngine | { reason: string }> {
  const { TEST_AMQP_URL, TEST_RABBITMQ_MANAGEMENT_URL } = process.env
  if (TEST_AMQP_URL && TEST_RABBITMQ_MANAGEMENT_URL) {
    return { env: { TEST_AMQP_URL, TEST_RABBITMQ_MANAGEMENT_URL }, end: async () => {} }
  }
  if (!rabbitMqPrograms()) return { reason: 'RabbitMQ is not installed (on Debian: the package rabbitmq-server)' }
  try {
    const server = await startRabbitMqServer()
    return {
      env: { TEST_AMQP_URL: server.amqpUrl, TEST_RABBITMQ_MANAGEMENT_URL: server.managementUrl },
      end: async () => server[Symbol.asyncDispose](),
    }
  } catch (error) {
    return { reason: `RabbitMQ does not start: ${(error as Error).message}` }
  }
}

if (import.meta.main) {
  const engine = await brokerEngine()
  if ('reason' in engine) {
    console.error(engine.reason)
    process.exit(1)
  }
  for (const [name, value] of Object.entries(engine.env)) console.log(`export ${name}=${value}`)
  const told = Promise.withResolvers<void>()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, told.resolve)
  const alive = setInterval(() => {}, 60_000)
  await told.promise
  clearInterval(alive)
  await engine.end()
}
