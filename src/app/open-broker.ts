import { readFile } from 'node:fs/promises'
import { hostname } from 'node:os'
import type { Broker } from '../broker/broker.ts'
import { createInProcessBroker } from '../broker/in-process.ts'
import type { Config } from '../config.ts'
import { parseAmqpUrl } from '../runtime/amqp-url.ts'
import type { Clock } from '../runtime/clock.ts'
import type { Logger } from '../runtime/log.ts'
import type { Service } from '../runtime/service.ts'

/** The broker that the configuration names. */
export interface OpenedBroker {
  broker: Broker
  /** Kind and vhost: the same on all living nodes (PROTOCOL 12). */
  name: string
  /** What is to be started and stopped with it. */
  service?: Service
}

/** RabbitMQ where `AMQP_URL` says, which need not be there yet; else a broker inside the process. */
export async function openBroker(
  { amqpUrl, amqpCaFile }: Pick<Config, 'amqpUrl' | 'amqpCaFile'>,
  log: Logger,
  clock: Clock,
): Promise<OpenedBroker> {
  if (!amqpUrl) return { broker: createInProcessBroker(), name: 'in-process' }
  // Loaded where it is needed: the others start without it.
  const { createRabbitMqBroker } = await import('../broker/rabbitmq.ts')
  const urls = amqpUrl
    .reveal()
    .split(',')
    .map((url) => url.trim())
  const ca = amqpCaFile === undefined ? undefined : await readFile(amqpCaFile, 'utf8')
  const broker = createRabbitMqBroker({ urls, ca, name: `longshore ${hostname()}:${process.pid}`, clock, log })
  return { broker, name: `rabbitmq:${parseAmqpUrl(urls[0] ?? '').vhost}`, service: broker }
}
