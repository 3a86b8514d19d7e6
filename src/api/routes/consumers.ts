import { type Static, Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { v7 as uuidv7 } from 'uuid'
import { formatDuration, parseDuration } from '../../runtime/duration.ts'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { Database } from '../../store/database/database.ts'
import {
  type Consumer,
  type ConsumerChange,
  consumerById,
  deleteConsumer,
  insertConsumer,
  listConsumers,
  updateConsumer,
} from '../../store/topology/consumers.ts'
import { checkTarget, type TargetChecks } from '../../submit/target-check.ts'
import { LIMITS } from '../../task/limits.ts'
import { withoutSecret } from '../../task/target/target.ts'
import type { RateLimit } from '../../task/topology/rate-limit.ts'
import type { Access } from '../access.ts'
import { readBody } from '../body.ts'
import { describe } from '../openapi/describe.ts'
import { DEFAULT_LIMIT, PageOf, pageOf, placeOf, uuidIn } from '../page.ts'
import { noContent } from '../response.ts'
import { readQuery } from '../validation.ts'
import {
  CHANGE_EXAMPLE,
  ConsumerBody,
  ConsumerPatch,
  ConsumerSchema,
  EXAMPLE,
  ListQuery,
  NEW_EXAMPLE,
} from './consumers/schema.ts'

export interface ConsumerDeps extends TargetChecks {
  db: Database['db']
  /** Called after every change of queues or consumers, so that this node follows it at once. */
  topologyChanged(): void
}

const TAG = 'Consumers'
const ID = { id: Type.String({ format: 'uuid', description: "The consumer's id" }) }
const DEFAULTS = { concurrency: 10, timeoutMs: 30_000, paused: false }

export function consumerRoutes(access: Access, deps: ConsumerDeps) {
  const { db } = deps
  const change = async (id: string, changed: ConsumerChange) => {
    const consumer = await updateConsumer(db, knownId(id), changed)
    if (!consumer) throw unknownConsumer(id)
    deps.topologyChanged()
    return shown(consumer)
  }

  return new Elysia({ prefix: '/consumers' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after, queue } = readQuery(ListQuery, request)
        const [id] =
          after === undefined ? [] : placeOf(after, ['string'], ([text]) => uuidIn(String(text)) !== undefined)
        const page = pageOf(await listConsumers(db, { queue, after: id, limit: limit + 1 }), limit, (consumer) => [
          consumer.id,
        ])
        return { ...page, items: page.items.map(shown) }
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'List consumers',
          description: 'Consumers, the oldest first. Secrets are not shown.',
          query: ListQuery,
          responses: { 200: ['A page of consumers', PageOf(ConsumerSchema), { items: [EXAMPLE], next: null }] },
        }),
      },
    )
    .post(
      '/',
      async ({ request, set }) => {
        const body = await readBody(ConsumerBody, request)
        checkTarget(body.target, deps)
        const values = { ...DEFAULTS, ...changeOf(body), target: body.target }
        const consumer = await insertConsumer(db, { id: uuidv7(), queue: body.queue, ...values })
        if (!consumer) {
          throw invalid('/queue', `there is no queue "${body.queue}"; make it first`, 'unknown-queue')
        }
        deps.topologyChanged()
        set.status = 201
        set.headers.location = `/api/v1/consumers/${consumer.id}`
        return shown(consumer)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Make a consumer',
          description:
            'From now on every node takes tasks of the queue and gives them to the target, with `concurrency` at once on each node. A queue can have several consumers.',
          body: [ConsumerBody, NEW_EXAMPLE],
          responses: { 201: ['The consumer; its place is in the header Location', ConsumerSchema, EXAMPLE] },
          problems: ['unknown-queue', 'unknown-target', 'unknown-handler'],
        }),
      },
    )
    .get(
      '/:id',
      async ({ params: { id } }) => {
        const consumer = await consumerById(db, knownId(id))
        if (!consumer) throw unknownConsumer(id)
        return shown(consumer)
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'Read a consumer',
          description: 'One consumer. Secrets are not shown.',
          params: ID,
          responses: { 200: ['The consumer', ConsumerSchema, EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
    .patch(
      '/:id',
      async ({ request, params: { id } }) => {
        const body = await readBody(ConsumerPatch, request)
        if (body.target) checkTarget(body.target, deps)
        return change(id, changeOf(body))
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Change a consumer',
          description:
            'Changes the fields that are given; a target is replaced as a whole. The queue cannot be changed.',
          params: ID,
          body: [ConsumerPatch, CHANGE_EXAMPLE],
          responses: { 200: ['The changed consumer', ConsumerSchema, { ...EXAMPLE, ...CHANGE_EXAMPLE }] },
          problems: ['not-found', 'unknown-target', 'unknown-handler'],
        }),
      },
    )
    .delete(
      '/:id',
      async ({ params: { id } }) => {
        if (!(await deleteConsumer(db, knownId(id)))) throw unknownConsumer(id)
        deps.topologyChanged()
        return noContent()
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Delete a consumer',
          description: 'Its running tasks end; what waits stays in the queue.',
          params: ID,
          responses: { 204: ['The consumer is gone'] },
          problems: ['not-found'],
        }),
      },
    )
    .post('/:id/pause', ({ params }) => change(params.id, { paused: true }), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Pause a consumer',
        description: 'It takes no further tasks, on every node; running ones end.',
        params: ID,
        responses: { 200: ['The paused consumer', ConsumerSchema, { ...EXAMPLE, paused: true }] },
        problems: ['not-found'],
      }),
    })
    .post('/:id/resume', ({ params }) => change(params.id, { paused: false }), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Resume a consumer',
        description: 'It takes tasks again.',
        params: ID,
        responses: { 200: ['The consumer', ConsumerSchema, EXAMPLE] },
        problems: ['not-found'],
      }),
    })
}

function shown({ timeoutMs, ...consumer }: Consumer) {
  return { ...consumer, target: withoutSecret(consumer.target), timeout: formatDuration(timeoutMs) }
}

function unknownConsumer(id: string): Problem {
  return new Problem('not-found', `There is no consumer "${id}"`)
}

function knownId(id: string): string {
  const uuid = uuidIn(id)
  if (uuid === undefined) throw unknownConsumer(id)
  return uuid
}

function changeOf(body: Static<typeof ConsumerPatch>): ConsumerChange {
  return {
    ...(body.target && { target: body.target }),
    ...(body.concurrency !== undefined && { concurrency: body.concurrency }),
    ...(body.timeout !== undefined && { timeoutMs: timeoutIn(body.timeout) }),
    ...(body.paused !== undefined && { paused: body.paused }),
    ...(body.rateLimit !== undefined && { rateLimit: limitIn(body.rateLimit) }),
  }
}

const LIMIT_PER = { minMs: 10, maxMs: 24 * 3_600_000 }

function limitIn(limit: RateLimit | null): RateLimit | null {
  const perMs = limit === null ? LIMIT_PER.minMs : (parseDuration(limit.per) ?? 0)
  if (perMs >= LIMIT_PER.minMs && perMs <= LIMIT_PER.maxMs) return limit
  throw invalid('/rateLimit/per', 'must be between 10ms and 24h')
}

function timeoutIn(text: string): number {
  const ms = parseDuration(text)
  if (ms !== undefined && ms >= LIMITS.minTimeoutMs && ms <= LIMITS.maxTimeoutMs) return ms
  const message = `must be between ${formatDuration(LIMITS.minTimeoutMs)} and ${formatDuration(LIMITS.maxTimeoutMs)}`
  throw invalid('/timeout', message)
}
