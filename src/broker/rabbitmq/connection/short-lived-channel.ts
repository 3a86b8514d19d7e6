import type { AMQPChannel } from '@cloudamqp/amqp-client'
import { messageOf } from '../../../runtime/errors.ts'
import { BrokerUnavailable } from '../../broker.ts'
import type { Link } from './link.ts'
import { isOfOneRequest, type Refusal, refusalOf } from './refusal.ts'

/** Something was asked, and what became of it is not known: the connection ended, or the answer took too long. */
export class NoAnswer extends BrokerUnavailable {}

/** Asks on a channel that nobody else uses: RabbitMQ closes a channel for a request that it refuses. */
export interface Asking {
  /** The answer, or RabbitMQ's word why not. Rejects with NoAnswer when there is none. */
  ask<T>(request: (channel: AMQPChannel) => Promise<T>): Promise<{ answer: T } | { refusal: Refusal }>
}

/** Runs `work` with one channel after another; a refused request costs one. */
export async function asking<T>(
  link: Link | undefined,
  reason: string | null,
  work: (asking: Asking) => Promise<T>,
): Promise<T> {
  if (!link) throw new BrokerUnavailable(reason ?? 'there is no connection to the broker yet')
  let channel: AMQPChannel | undefined
  try {
    return await work({
      async ask(request) {
        try {
          if (!channel || channel.closed) channel = await link.channel()
          return { answer: await link.ask(request(channel)) }
        } catch (error) {
          const refusal = refusalOf(error)
          if (refusal && isOfOneRequest(refusal)) return { refusal }
          // Not with the client's error as its cause: that one holds the connection, and so the password.
          throw new NoAnswer(messageOf(error))
        }
      },
    })
  } finally {
    if (channel && !channel.closed) void link.ask(channel.close()).catch(() => {})
  }
}
