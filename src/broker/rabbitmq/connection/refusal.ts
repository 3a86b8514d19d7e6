import type { BrokerAddress } from '../../../runtime/amqp-url.ts'
import { messageOf } from '../../../runtime/errors.ts'
import { placeOf } from './address.ts'

/** RabbitMQ's own word, for an operation or a whole channel or connection: its code (AMQP 0-9-1, 1.2) and text. */
export interface Refusal {
  code: number
  text: string
}

export const NOT_FOUND = 404
export const ACCESS_REFUSED = 403
export const RESOURCE_LOCKED = 405
export const PRECONDITION_FAILED = 406

/** Errors for which RabbitMQ closes a channel because of what was asked there; others are its own troubles. */
export const isOfOneRequest = ({ code }: Refusal): boolean =>
  [ACCESS_REFUSED, NOT_FOUND, RESOURCE_LOCKED, PRECONDITION_FAILED].includes(code)

/** Whether it holds for every message to the exchange, and not for a routing key (topic authorisation) or an internal exchange. */
export const isOfExchange = ({ code, text }: Refusal): boolean =>
  code === ACCESS_REFUSED && /access to exchange/i.test(text)

/** Reads the client's message about a channel or connection that the server closed; undefined when it is about something else. */
export function refusalOf(thrown: unknown): Refusal | undefined {
  const found = /^(?:channel \d+|connection) closed: (.*) \((\d+)\)$/s.exec(messageOf(thrown))
  return found ? { code: Number(found[2]), text: found[1] ?? '' } : undefined
}

/** Why there is no connection, in words that somebody can act on. Never with a password. */
export function reasonInWords(address: BrokerAddress, thrown: unknown): string {
  const place = placeOf(address)
  const refusal = refusalOf(thrown)
  if (refusal) return refusalInWords(address, refusal)
  const code = (thrown as NodeJS.ErrnoException | undefined)?.code ?? ''
  const message = messageOf(thrown)
  if (code === 'ECONNREFUSED') return `the broker at ${place} refuses connections (is AMQP_URL right?)`
  if (code === 'ENOTFOUND' || code === 'EAI_AGAIN') return `nobody knows the host ${address.host} (is AMQP_URL right?)`
  if (code === 'ETIMEDOUT' || code === 'EHOSTUNREACH' || code === 'ENETUNREACH')
    return `the broker at ${place} cannot be reached (${code})`
  if (address.tls && /wrong.version.number|packet length|EPROTO/i.test(`${code} ${message}`))
    return `the broker at ${place} does not speak TLS there (amqp:// or another port?)`
  if (address.tls && /cert|signature|altname|issuer|self.signed|DEPTH_ZERO/i.test(`${code} ${message}`))
    return `the certificate of the broker at ${place} is not accepted: ${code || message} (is AMQP_CA_FILE right?)`
  return `the connection to the broker at ${place} ended: ${message}`
}

function refusalInWords(address: BrokerAddress, { code, text }: Refusal): string {
  const place = placeOf(address)
  if (code === ACCESS_REFUSED && /login was refused/i.test(text))
    return `the broker at ${place} refuses the user "${address.user}" (are name and password in AMQP_URL right?)`
  if (code === 530 && /not.found/i.test(text)) return `the broker at ${place} has no vhost "${address.vhost}"`
  if (code === 530 && /refused/i.test(text))
    return `the broker at ${place} does not let the user "${address.user}" into the vhost "${address.vhost}"`
  return `the broker at ${place} closed the connection: ${text}`
}
