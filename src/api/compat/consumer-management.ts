import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { v7 as uuidv7 } from 'uuid'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import { type Consumer, deleteConsumer, insertConsumer } from '../../store/topology/consumers.ts'
import { insertQueue, queueByName } from '../../store/topology/queues.ts'
import type { TargetChecks } from '../../submit/target-check.ts'
import { withoutSecret } from '../../task/target/target.ts'
import { DEFAULT_QUEUE } from '../../task/topology/queue.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { uuidIn } from '../page.ts'
import { allConnections, type Connection, type ConnectionDeps, placeOfConnection } from '../routes/connections.ts'
import { unknownQueue } from '../routes/queues.ts'
import { allConsumers } from './consumer-management/all-consumers.ts'
import { type ListedQueuesDeps, listedQueues } from './consumer-management/listed-queues.ts'
import { type OrderApi, orderTarget } from './consumer-management/order-target.ts'
import { deleteQueueGuarded, type QueueDeletionDeps } from './consumer-management/queue-deletion.ts'
import * as schema from './consumer-management/schema.ts'
import { orBadRequest, readOldBody } from './old-body.ts'
import { type OldSubmitDeps, oldTask, submitOld } from './old-task.ts'

export interface ConsumerManagementDeps
  extends OldSubmitDeps,
    QueueDeletionDeps,
    ListedQueuesDeps,
    ConnectionDeps,
    Pick<TargetChecks, 'checkUrl'> {
  log: Logger
  orderApi: OrderApi
}

const DEFAULTS = { concurrency: 10, timeoutMs: 30_000, paused: false }
const CREATED = { message: 'Queue has been created successfully.' }
const DELETED = { message: 'Queue has been deleted successfully.' }
const CONSUMER_CREATED = { message: 'Consumer has been created successfully.' }
const CONSUMER_DELETED = { message: 'Consumer has been deleted successfully.' }
const PUBLISHED = { message: 'Message has been published successfully.' }
const older = { tag: 'compat', older: { invalid: 'bad-request' } } as const

/** Queues, consumers, publishing and connections over REST; every message of its consumers goes to one HTTP API. */
export function consumerManagementRoutes(access: Access, deps: ConsumerManagementDeps) {
  const { db, log } = deps
  const read = <S extends Parameters<typeof readOldBody>[0]>(body: S, request: Request, raw?: string) =>
    orBadRequest(() => readOldBody(body, request, raw))

  return new Elysia()
    .use(access)
    .get('/getQueues', () => listedQueues(deps), {
      scope: 'read',
      detail: describe({
        ...older,
        summary: 'List queues',
        description: 'All queues by name, counted now.',
        responses: { 200: ['The queues', Type.Array(schema.ListedQueue), [schema.QUEUE_EXAMPLE]] },
      }),
    })
    .post(
      '/createQueue',
      async ({ request, set, principal }) => {
        const { body } = await read(schema.CreateQueueBody, request)
        const created = await insertQueue(db, body.queueName)
        set.status = created ? 201 : 200
        if (!created) return CREATED
        deps.topologyChanged()
        log.info({ event: 'queue-created', queue: body.queueName, key: principal.keyId }, 'A queue was made')
        return CREATED
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Make a queue',
          description: 'With the default policy. A queue that is there stays as it is: 200.',
          body: [schema.CreateQueueBody, { queueName: 'orders' }],
          responses: {
            200: ['There was one of that name', schema.Told, CREATED],
            201: ['The queue was made', schema.Told, CREATED],
          },
        }),
      },
    )
    .post(
      '/getQueueInfo',
      async ({ request }) => {
        const { body } = await read(schema.QueueBody, request)
        const [queue] = await listedQueues(deps, body.queueName)
        if (!queue) throw unknownQueue(body.queueName)
        return queue
      },
      {
        scope: 'read',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Read a queue',
          description: 'Asking for a queue never makes it.',
          body: [schema.QueueBody, { queueName: 'orders' }],
          responses: { 200: ['The queue', schema.ListedQueue, schema.QUEUE_EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
    .post(
      '/deleteQueue',
      async ({ request, principal }) => {
        const { body } = await read(schema.DeleteQueueBody, request)
        const { queueName, ifEmpty = false, ifUnused = false } = body
        await deleteQueueGuarded(deps, queueName, { ifEmpty, ifUnused })
        log.info({ event: 'queue-deleted', queue: queueName, key: principal.keyId }, 'A queue was deleted')
        return DELETED
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Delete a queue',
          description:
            'With its consumers and what waits in it, unless `ifUnused` or `ifEmpty` is true. What waits is cancelled and stays in the ledger; what runs ends first, for ten seconds at most (else 409).',
          body: [schema.DeleteQueueBody, { queueName: 'orders', ifEmpty: true, ifUnused: true }],
          responses: { 200: ['The queue is gone', schema.Told, DELETED] },
          problems: ['not-found', 'conflict', 'queue-not-empty'],
        }),
      },
    )
    .get('/getConsumers', async () => (await allConsumers(db)).map(shownConsumer), {
      scope: 'read',
      detail: describe({
        ...older,
        summary: 'List consumers',
        description: 'All consumers, the oldest first. Secrets are not shown.',
        responses: { 200: ['The consumers', Type.Array(schema.ListedConsumer), [schema.CONSUMER_EXAMPLE]] },
      }),
    })
    .get(
      '/getConsumers/:queueName',
      async ({ params: { queueName } }) => {
        if (!(await queueByName(db, queueName))) throw unknownQueue(queueName)
        return (await allConsumers(db, queueName)).map(shownConsumer)
      },
      {
        scope: 'read',
        detail: describe({
          ...older,
          summary: 'List the consumers of a queue',
          description: 'The oldest first. Secrets are not shown.',
          params: { queueName: 'The name of a queue' },
          responses: { 200: ['The consumers', Type.Array(schema.ListedConsumer), [schema.CONSUMER_EXAMPLE]] },
          problems: ['not-found'],
        }),
      },
    )
    .post(
      '/createConsumer',
      async ({ request, set, principal }) => {
        const { body } = await read(schema.QueueBody, request)
        if (!(await queueByName(db, body.queueName))) throw unknownQueue(body.queueName)
        const consumerName = uuidv7()
        const target = orderTarget(deps.orderApi, consumerName, deps.checkUrl)
        const order = { id: consumerName, queue: body.queueName, target, ...DEFAULTS }
        if (!(await insertConsumer(db, order))) throw unknownQueue(body.queueName)
        deps.topologyChanged()
        log.info(
          { event: 'consumer-created', consumer: consumerName, queue: body.queueName, key: principal.keyId },
          'A consumer was made',
        )
        set.status = 201
        return { ...CONSUMER_CREATED, consumerName }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Make a consumer',
          description:
            'It delivers each message of the queue to PROCESS_ORDER_URL as a form. A payload with `clientId` and `shipmentPackageId` is sent as `client_id` and `shipment_package_id`, others with their own fields; `consumerId` and `secret_key` (SECRET_KEY) are added.',
          body: [schema.QueueBody, { queueName: 'orders' }],
          responses: {
            201: [
              'The consumer was made',
              schema.MadeConsumer,
              { ...CONSUMER_CREATED, consumerName: schema.CONSUMER_EXAMPLE.consumerName },
            ],
          },
          problems: ['not-found', 'unknown-target', 'conflict'],
        }),
      },
    )
    .post(
      '/deleteConsumer',
      async ({ request, principal }) => {
        const { body } = await read(schema.ConsumerBody, request)
        const id = uuidIn(body.consumerName)
        if (id === undefined || !(await deleteConsumer(db, id)))
          throw new Problem('not-found', `There is no consumer "${body.consumerName}"`)
        deps.topologyChanged()
        log.info({ event: 'consumer-deleted', consumer: id, key: principal.keyId }, 'A consumer was deleted')
        return CONSUMER_DELETED
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Delete a consumer',
          description: 'This one takes nothing more and ends the work in hand; others of its queue go on.',
          body: [schema.ConsumerBody, { consumerName: schema.CONSUMER_EXAMPLE.consumerName }],
          responses: { 200: ['The consumer is gone', schema.Told, CONSUMER_DELETED] },
          problems: ['not-found'],
        }),
      },
    )
    .post(
      '/messagePublish',
      async ({ request }) => {
        const { body, raw } = await read(schema.PublishBody, request, 'message')
        const taskId = await publish(body.queueName, raw, request)
        log.info({ event: 'message-published', task: taskId, queue: body.queueName }, 'A message was published')
        return { ...PUBLISHED, taskId }
      },
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Publish a message',
          description: 'One message, as a task that is committed when the answer comes.',
          body: [schema.PublishBody, { queueName: 'orders', message: { clientId: 7, shipmentPackageId: 1042 } }],
          responses: {
            200: [
              'The message is published',
              schema.Published,
              { ...PUBLISHED, taskId: '019b7a3e-5c00-7000-8000-000000000001' },
            ],
          },
          problems: ['not-found', 'unknown-target', 'storage-full', 'unknown', 'overloaded', 'shutting-down'],
        }),
      },
    )
    .get('/getConnections', async () => (await allConnections(deps)).connections.map(shownConnection), {
      scope: 'read',
      detail: describe({
        ...older,
        summary: 'List connections to the broker',
        description: 'As `GET /api/v1/connections` has them; none while the broker is inside the process.',
        responses: { 200: ['The connections', Type.Array(schema.ListedConnection), [schema.CONNECTION_EXAMPLE]] },
      }),
    })

  async function publish(queue: string, payload: string, request: Request): Promise<string> {
    if (queue === DEFAULT_QUEUE) {
      const message = 'is not for messages: its consumer delivers to the target that each task brings'
      throw invalid('/queueName', message, 'unknown-target')
    }
    try {
      return (await submitOld(deps, request, oldTask(queue, payload))).id
    } catch (error) {
      throw error instanceof Problem && error.code === 'unknown-queue' ? unknownQueue(queue) : error
    }
  }
}

function shownConnection(connection: Connection): Static<typeof schema.ListedConnection> {
  const { node, host, purpose, since } = connection
  return { connectionId: placeOfConnection(connection).trim(), node, host, purpose, since }
}

function shownConsumer({ id, queue, target, concurrency, paused, createdAt }: Consumer) {
  return { consumerName: id, queueName: queue, target: withoutSecret(target), concurrency, paused, createdAt }
}
