import { Type } from '@sinclair/typebox'
import { invalid } from '../../../runtime/errors.ts'
import type { Exchange } from '../../../store/topology/exchanges.ts'
import { EXCHANGE_TYPES, ExchangeNameSchema } from '../../../task/topology/topology.ts'
import { BROKER_STATE, brokerState } from '../queues/schema.ts'

const ExchangeTypeSchema = Type.Union(
  EXCHANGE_TYPES.map((type) => Type.Literal(type)),
  {
    description:
      'direct: queues bound with the very routing key; topic: with a pattern of it; fanout: all that are bound',
  },
)
const Queue = Type.String({ maxLength: 128, description: 'An existing queue' })
const RoutingKey = Type.String({
  maxLength: 255,
  description: 'Up to 255 bytes. Of a topic exchange a pattern: * is one word, # any number of them, words end at dots',
  examples: ['orders.*.new'],
})

export const ExchangeBody = Type.Object({ type: ExchangeTypeSchema }, { additionalProperties: false })
export const BindingBody = Type.Object(
  { queue: Queue, routingKey: Type.Optional({ ...RoutingKey, default: '' }) },
  { additionalProperties: false },
)
export const BindingSchema = Type.Object({ queue: Queue, routingKey: RoutingKey })

/** An exchange as responses show it. */
export const ExchangeSchema = Type.Object({
  name: ExchangeNameSchema,
  type: ExchangeTypeSchema,
  ...BROKER_STATE,
  bindings: Type.Array(BindingSchema, { description: 'By queue, then routing key' }),
  createdAt: Type.String({ format: 'date-time' }),
  updatedAt: Type.String({ format: 'date-time' }),
})

export const BINDING_EXAMPLE = { queue: 'emails', routingKey: 'orders.*.new' }
export const EXCHANGE_EXAMPLE = {
  name: 'orders',
  type: 'topic',
  state: 'ready',
  conflict: null,
  bindings: [BINDING_EXAMPLE],
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
}

export function exchangeJson({ conflict, ...exchange }: Exchange) {
  return { ...exchange, ...brokerState({ conflict }) }
}

/** The routing key, by AMQP's bound in bytes. */
export function routingKeyOf(given = ''): string {
  if (Buffer.byteLength(given) > 255) throw invalid('/routingKey', 'may have at most 255 bytes')
  return given
}
