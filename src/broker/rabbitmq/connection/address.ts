import type { BrokerAddress } from '../../../runtime/amqp-url.ts'

/** What may be shown of it: never the password. */
export const placeOf = ({ host, port }: Pick<BrokerAddress, 'host' | 'port'>): string => `${bracketed(host)}:${port}`

/** The URL that AMQPClient is made with. Its parameters are ours alone: one of them would switch off the certificate check. */
export function clientUrl(address: BrokerAddress, parameters: Record<string, string>): string {
  const { tls, host, port, vhost, user, password } = address
  const who = `${encodeURIComponent(user)}:${encodeURIComponent(password.reveal())}`
  const where = `${bracketed(host)}:${port}/${encodeURIComponent(vhost)}`
  return `${tls ? 'amqps' : 'amqp'}://${who}@${where}?${new URLSearchParams(parameters)}`
}

const bracketed = (host: string) => (host.includes(':') ? `[${host}]` : host)
