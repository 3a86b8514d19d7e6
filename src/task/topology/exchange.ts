import { Type } from '@sinclair/typebox'

/** An exchange as a submission names it; which ones there are, the ledger knows. */
export const AddressedExchangeSchema = Type.String({
  minLength: 1,
  maxLength: 128,
  description: 'Instead of a queue: each queue that is bound to this exchange for the routing key gets the task',
  examples: ['orders'],
})

/** Bytes of a routing key, as AMQP bounds them (a short string). */
export const ROUTING_KEY_BYTES = 255

export const RoutingKeySchema = Type.String({
  maxLength: ROUTING_KEY_BYTES,
  default: '',
  description: `Which of the exchange's bindings are meant; at most ${ROUTING_KEY_BYTES} bytes`,
  examples: ['orders.eu.new'],
})

const LINE = 'exchange/'

/**
 * What stands in the column `queue` of a task that is fanned out by an exchange. It is in no queue, and no queue can have
 * this name, while one of the exchange's name may well exist.
 */
export function lineOf(exchange: string): string {
  return LINE + exchange
}

/** The exchange of such a line; undefined for a queue. */
export function exchangeOfLine(line: string): string | undefined {
  return line.startsWith(LINE) ? line.slice(LINE.length) : undefined
}
