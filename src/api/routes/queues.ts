import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { Database } from '../../store/database.ts'
import { queueRates } from '../../store/node-list.ts'
import {
  deleteQueue,
  listQueues,
  noFigures,
  putQueue,
  type Queue,
  queueByName,
  queueFigures,
  setQueuePaused,
} from '../../store/queues.ts'
import {
  DEFAULT_QUEUE,
  DEFAULT_RETENTION,
  QueueNameSchema,
  type QueuePolicy,
  QueuePolicySchema,
} from '../../task/queue.ts'
import { DEFAULT_RETRY_POLICY } from '../../task/retry-policy.ts'
import type { Access } from '../access.ts'
import { readBody } from '../body.ts'
import { cached } from '../cached.ts'
import { describe } from '../describe.ts'
import { noContent } from '../no-content.ts'
import { DEFAULT_LIMIT, PageOf, PageQuery, pageOf, placeOf } from '../page.ts'
import { checked, readQuery } from '../validation.ts'
import { QUEUE_EXAMPLE, QueueSchema } from './queue-schema.ts'

export interface QueueDeps {
  db: Database['db']
  /** Called after every change of queues or consumers, so that this node follows it at once. */
  topologyChanged(): void
  /** Cancels the waiting tasks of a queue; how many there were. */
  purge(queue: string): Promise<number>
}

const TAG = 'Queues'
const ListQuery = Type.Object(PageQuery, { additionalProperties: false })
const PurgeBody = Type.Object(
  { confirm: Type.String({ description: "The queue's name, once more" }) },
  { additionalProperties: false },
)
const PurgeResult = Type.Object({ cancelled: Type.Integer({ description: 'Waiting tasks that were cancelled' }) })
const NAME = { name: QueueNameSchema }
const POLICY_EXAMPLE = {
  retry: { maxAttempts: 5, backoff: { kind: 'exponential', base: '1s', factor: 2, max: '1h', jitter: 0.2 } },
  retention: { succeeded: '1d' },
}

export function queueRoutes(access: Access, deps: QueueDeps) {
  const { db } = deps
  const figures = cached(async () => {
    const [depths, rates] = await Promise.all([queueFigures(db), queueRates(db)])
    return { depths, rates }
  })
  const shown = async (queue: Queue): Promise<Static<typeof QueueSchema>> => {
    const { depths, rates } = await figures()
    return { ...queue, ...(depths.get(queue.name) ?? noFigures()), rate: rates.get(queue.name) ?? 0 }
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
            'Makes the queue, or replaces its whole policy: a field that is missing takes its default. Whether the queue is paused stays as it is. New limits count for tasks submitted from now on.',
          params: NAME,
          body: [QueuePolicySchema, POLICY_EXAMPLE],
          responses: {
            200: ['The queue was replaced', QueueSchema, QUEUE_EXAMPLE],
            201: ['The queue was made', QueueSchema, QUEUE_EXAMPLE],
          },
        }),
      },
    )
    .delete(
      '/:name',
      async ({ params: { name } }) => {
        if (name === DEFAULT_QUEUE) throw new Problem('conflict', `The queue "${name}" is built in and stays`)
        const deletion = await deleteQueue(db, name)
        switch (deletion) {
          case 'unknown':
            throw unknownQueue(name)
          case 'has-consumers':
            throw new Problem('conflict', `The queue "${name}" has consumers; delete them first`)
          case 'has-live-tasks':
            throw new Problem(
              'queue-not-empty',
              `The queue "${name}" has tasks that are not final; finish, cancel or purge them first`,
            )
          case 'deleted':
            deps.topologyChanged()
            return noContent()
          default:
            return deletion satisfies never
        }
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Delete a queue',
          description:
            'Deletes a queue that has neither consumers nor live tasks. Its final tasks stay until their retention ends.',
          params: NAME,
          responses: { 204: ['The queue is gone'] },
          problems: ['not-found', 'conflict', 'queue-not-empty'],
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
    .post(
      '/:name/purge',
      async ({ request, params: { name } }) => {
        const { confirm } = await readBody(PurgeBody, request)
        if (!(await queueByName(db, name))) throw unknownQueue(name)
        if (confirm !== name) throw invalid('/confirm', `must be the queue's name, "${name}"`)
        return { cancelled: await deps.purge(name) }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Purge a queue',
          description:
            'Cancels every task of the queue that waits. Running tasks go on. Cancelled tasks can be replayed.',
          params: NAME,
          body: [PurgeBody, { confirm: 'emails' }],
          responses: { 200: ['How many were cancelled', PurgeResult, { cancelled: 12 }] },
          problems: ['not-found'],
        }),
      },
    )
}

export function unknownQueue(name: string): Problem {
  return new Problem('not-found', `There is no queue "${name}"`)
}

const PathName = Type.Object(NAME)

function checkedName(name: string): string {
  return checked(PathName, { name }).name
}

function policyOf(body: Static<typeof QueuePolicySchema>): QueuePolicy {
  return {
    type: body.type ?? 'quorum',
    retry: body.retry ?? DEFAULT_RETRY_POLICY,
    retention: { ...DEFAULT_RETENTION, ...body.retention },
  }
}
