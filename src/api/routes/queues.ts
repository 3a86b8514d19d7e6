import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../runtime/errors.ts'
import type { Database } from '../../store/database/database.ts'
import { workOfQueues } from '../../store/node-list.ts'
import {
  listQueues,
  noFigures,
  putQueue,
  type Queue,
  queueByName,
  queueFigures,
  setQueuePaused,
} from '../../store/topology/queues.ts'
import { QueueNameSchema, QueuePolicySchema } from '../../task/topology/queue.ts'
import type { Access } from '../access.ts'
import { readBody } from '../body.ts'
import { cached } from '../cached.ts'
import { describe } from '../openapi/describe.ts'
import { DEFAULT_LIMIT, PageOf, PageQuery, pageOf, placeOf } from '../page.ts'
import { checked, readQuery } from '../validation.ts'
import { policyOf, QUEUE_EXAMPLE, QueueSchema, queueJson } from './queues/schema.ts'

export interface QueueDeps {
  db: Database['db']
  /** Called after every change of queues or consumers, so that this node follows it at once. */
  topologyChanged(): void
}

const TAG = 'Queues'
const ListQuery = Type.Object(PageQuery, { additionalProperties: false })
export const NAME = { name: QueueNameSchema }
const POLICY_EXAMPLE = {
  retry: { maxAttempts: 5, backoff: { kind: 'exponential', base: '1s', factor: 2, max: '1h', jitter: 0.2 } },
  retention: { succeeded: '1d' },
}

export function queueRoutes(access: Access, deps: QueueDeps) {
  const { db } = deps
  const figures = cached(async () => {
    const [depths, work] = await Promise.all([queueFigures(db), workOfQueues(db)])
    return { depths, work }
  })
  const shown = async (queue: Queue): Promise<Static<typeof QueueSchema>> => {
    const { depths, work } = await figures()
    return queueJson(queue, depths.get(queue.name) ?? noFigures(), work.get(queue.name)?.rate ?? 0)
  }
  const pausing = async (name: string, paused: boolean) => {
    const queue = await setQueuePaused(db, name, paused)
    if (!queue) throw unknownQueue(name)
    deps.topologyChanged()
    return shown(queue)
  }

  return new Elysia({ prefix: '/queues' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
        const [name] = after === undefined ? [] : placeOf(after, ['string'])
        const page = pageOf(await listQueues(db, limit + 1, name), limit, (queue) => [queue.name])
        return { ...page, items: await Promise.all(page.items.map(shown)) }
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'List queues',
          description: 'Queues by name with their policies and figures. Figures are at most five seconds old.',
          query: ListQuery,
          responses: { 200: ['A page of queues', PageOf(QueueSchema), { items: [QUEUE_EXAMPLE], next: null }] },
        }),
      },
    )
    .get(
      '/:name',
      async ({ params }) => {
        const queue = await queueByName(db, params.name)
        if (!queue) throw unknownQueue(params.name)
        return shown(queue)
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'Read a queue',
          description: 'A queue with its policies and figures.',
          params: NAME,
          responses: { 200: ['The queue', QueueSchema, QUEUE_EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
    .put(
      '/:name',
      async ({ request, params, set }) => {
        const name = checkedName(params.name)
        const { queue, created } = await putQueue(db, name, policyOf(await readBody(QueuePolicySchema, request)))
        deps.topologyChanged()
        set.status = created ? 201 : 200
        if (created) set.headers.location = `/api/v1/queues/${encodeURIComponent(name)}`
        return shown(queue)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Make or replace a queue',
          description:
            'Makes the queue, or replaces its whole policy: a field that is missing takes its default. Whether the queue is paused stays as it is. New limits count for tasks submitted from now on. RabbitMQ cannot change a queue that it has: with another `type`, `maxPriority` or `deadLetter` the queue stands still and shows `state: conflict` with what to do.',
          params: NAME,
          body: [QueuePolicySchema, POLICY_EXAMPLE],
          responses: {
            200: ['The queue was replaced', QueueSchema, QUEUE_EXAMPLE],
            201: ['The queue was made', QueueSchema, QUEUE_EXAMPLE],
          },
          problems: ['conflict'],
        }),
      },
    )
    .post('/:name/pause', ({ params }) => pausing(params.name, true), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Pause a queue',
        description:
          'No task of the queue starts any more, on every node; running ones end. Pausing twice is no mistake.',
        params: NAME,
        responses: { 200: ['The paused queue', QueueSchema, { ...QUEUE_EXAMPLE, paused: true }] },
        problems: ['not-found'],
      }),
    })
    .post('/:name/resume', ({ params }) => pausing(params.name, false), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Resume a queue',
        description: 'Tasks of the queue start again.',
        params: NAME,
        responses: { 200: ['The queue', QueueSchema, QUEUE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
}

export function unknownQueue(name: string): Problem {
  return new Problem('not-found', `There is no queue "${name}"`)
}

const PathName = Type.Object(NAME)

function checkedName(name: string): string {
  return checked(PathName, { name }).name
}
