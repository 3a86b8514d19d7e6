import { Secret } from './log.ts'

/** Where one RabbitMQ is and who asks. */
export interface BrokerAddress {
  tls: boolean
  host: string
  port: number
  vhost: string
  user: string
  password: Secret
}

/** Reads URLs of one cluster, separated by commas; undefined when one of them is none, or they differ in their vhost. */
export function parseAmqpUrls(text: string): BrokerAddress[] | undefined {
  try {
    const addresses = text.split(',').map((url) => parseAmqpUrl(url.trim()))
    return addresses.every(({ vhost }) => vhost === addresses[0]?.vhost) ? addresses : undefined
  } catch {
    return undefined
  }
}

/** Reads an `amqp` or `amqps` URL as RabbitMQ's clients do: what is missing is guest, guest, the scheme's port and the vhost `/`. Throws when it is none. */
export function parseAmqpUrl(text: string): BrokerAddress {
  const url = new URL(text)
  if (!['amqp:', 'amqps:'].includes(url.protocol)) throw new TypeError('An AMQP URL begins with amqp:// or amqps://')
  const tls = url.protocol === 'amqps:'
  return {
    tls,
    host: url.hostname.replace(/^\[(.*)\]$/, '$1') || 'localhost',
    port: Number(url.port) || (tls ? 5671 : 5672),
    vhost: decodeURIComponent(url.pathname.slice(1)) || '/',
    user: decodeURIComponent(url.username) || 'guest',
    password: new Secret(decodeURIComponent(url.password) || 'guest'),
  }
}
