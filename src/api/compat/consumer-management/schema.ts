import { Type } from '@sinclair/typebox'
import { ConsumerTargetSchema } from '../../../task/target/target.ts'
import { QueueNameSchema } from '../../../task/topology/queue.ts'

const Strict = { additionalProperties: false }
const Name = Type.String({ maxLength: 128, description: 'The name of a queue' })

export const CreateQueueBody = Type.Object({ queueName: QueueNameSchema }, Strict)
export const QueueBody = Type.Object({ queueName: Name }, Strict)
export const DeleteQueueBody = Type.Object(
  {
    queueName: Name,
    ifEmpty: Type.Optional(Type.Boolean({ description: 'Only when it has no live tasks' })),
    ifUnused: Type.Optional(Type.Boolean({ description: 'Only when it has no consumers' })),
  },
  Strict,
)
export const ConsumerBody = Type.Object({ consumerName: Type.String({ maxLength: 128 }) }, Strict)
export const PublishBody = Type.Object(
  {
    queueName: Name,
    message: Type.Unknown({ description: 'Any JSON up to 1 MiB; kept and delivered as the very text that was sent' }),
  },
  Strict,
)

export const Told = Type.Object({ message: Type.String({ description: 'For people' }) })
export const MadeConsumer = Type.Object({ ...Told.properties, consumerName: Type.String() })
export const Published = Type.Object({
  ...Told.properties,
  taskId: Type.String({ format: 'uuid', description: 'Read it at /api/v1/tasks/<taskId>' }),
})
export const ListedQueue = Type.Object({
  queueName: Type.String(),
  messages: Type.Integer({
    description: "What waits, due or not, here or in the broker, others' messages included; not what runs",
  }),
  consumers: Type.Integer({
    description:
      'Consumers that were made for it, paused ones included, or those that take from it at RabbitMQ (each on each node, and others), whichever are more',
  }),
})
export const ListedConsumer = Type.Object({
  consumerName: Type.String({ description: 'Stays the same as long as the consumer is there' }),
  queueName: Type.String(),
  target: { ...ConsumerTargetSchema, description: 'Where it delivers; secrets are not shown' },
  concurrency: Type.Integer(),
  paused: Type.Boolean(),
  createdAt: Type.String({ format: 'date-time' }),
})
export const ListedConnection = Type.Object({
  connectionId: Type.String({ description: 'Its name, and for those of others the address of the client' }),
  node: Type.Union([Type.String(), Type.Null()], { description: 'Which node has it; null: somebody else' }),
  host: Type.Union([Type.String(), Type.Null()]),
  purpose: Type.Union([Type.String(), Type.Null()], { description: 'What the node does with it' }),
  since: Type.Union([Type.String({ format: 'date-time' }), Type.Null()]),
})

const CONSUMER_NAME = '019b7a3e-5c00-7000-8000-000000000002'
export const QUEUE_EXAMPLE = { queueName: 'orders', messages: 3, consumers: 1 }
export const CONSUMER_EXAMPLE = {
  consumerName: CONSUMER_NAME,
  queueName: 'orders',
  target: {
    type: 'http',
    url: 'https://api.example.com/process-order',
    format: 'form',
    rename: { clientId: 'client_id', shipmentPackageId: 'shipment_package_id' },
    together: ['clientId', 'shipmentPackageId'],
    fields: { consumerId: CONSUMER_NAME, secret_key: '[secret]' },
  },
  concurrency: 10,
  paused: false,
  createdAt: '2026-01-01T00:00:00.000Z',
}
export const CONNECTION_EXAMPLE = {
  connectionId: 'longshore worker-1 publish',
  node: '019b7a3e-5c00-7000-8000-000000000003',
  host: 'rabbitmq:5672',
  purpose: 'publish',
  since: '2026-01-01T00:00:00.000Z',
}
