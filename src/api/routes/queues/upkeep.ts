import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { invalid, Problem } from '../../../runtime/errors.ts'
import type { Database } from '../../../store/database/database.ts'
import { queueByName } from '../../../store/topology/queues.ts'
import { DEFAULT_QUEUE, PURGES, type Purge } from '../../../task/topology/queue.ts'
import type { Guards, QueueRemoval } from '../../../topology/remove-queue.ts'
import type { Access } from '../../access.ts'
import { readBody } from '../../body.ts'
import { describe } from '../../openapi/describe.ts'
import { noContent } from '../../response.ts'
import { readQuery } from '../../validation.ts'
import { NAME, unknownQueue } from '../queues.ts'

/** Each takes the broker along; rejects with BrokerUnavailable. */
export interface QueueUpkeepDeps {
  db: Database['db']
  purge(queue: string, purge: Purge): Promise<{ cancelled: number; returned: number }>
  /** Sends again what was handed to the broker; how many tasks. */
  resend(queue: string): Promise<number>
  removeQueue(queue: string, guards: Guards): Promise<QueueRemoval>
}

const TAG = 'Queues'
const Confirm = Type.String({ maxLength: 128, description: "The queue's name, once more" })
const PurgeBody = Type.Object(
  {
    confirm: Confirm,
    queued: Type.Optional(
      Type.Union(
        PURGES.map((purge) => Type.Literal(purge)),
        {
          default: 'cancel',
          description:
            'cancel: every task that no worker has yet is cancelled; return: none is, and what RabbitMQ held waits in Postgres again',
        },
      ),
    ),
  },
  { additionalProperties: false },
)
const PurgeResult = Type.Object({
  cancelled: Type.Integer({ description: 'Tasks that were cancelled' }),
  returned: Type.Integer({ description: 'Tasks that wait in Postgres again' }),
})
const ResendResult = Type.Object({ returned: PurgeResult.properties.returned })
const DeleteQuery = Type.Object(
  {
    ifEmpty: Type.Optional(
      Type.Boolean({
        description: 'Only without live tasks and messages; false needs `confirm`. True without `confirm`',
      }),
    ),
    ifUnused: Type.Optional(
      Type.Boolean({ description: 'Only without consumers; false needs `confirm`. True without `confirm`' }),
    ),
    confirm: Type.Optional({
      ...Confirm,
      description: "The queue's name, once more: deletes it with its consumers, and cancels its tasks",
    }),
  },
  { additionalProperties: false },
)

/** What empties and ends queues. */
export function queueUpkeepRoutes(access: Access, deps: QueueUpkeepDeps) {
  const known = async (name: string) => {
    if (!(await queueByName(deps.db, name))) throw unknownQueue(name)
  }

  return new Elysia({ prefix: '/queues' })
    .use(access)
    .delete(
      '/:name',
      async ({ request, params: { name } }) => {
        if (name === DEFAULT_QUEUE) throw new Problem('conflict', `The queue "${name}" is built in and stays`)
        const removal = await deps.removeQueue(name, readGuards(request, name))
        if (removal !== 'deleted') throw kept(name, removal)
        return noContent()
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Delete a queue',
          description:
            'Deletes a queue that has neither consumers nor live tasks, at RabbitMQ, too. With `confirm` its consumers go with it, waiting tasks are cancelled and running ones asked to stop: while some still run it answers 409, and can be called again. Final tasks stay until their retention ends.',
          params: NAME,
          query: DeleteQuery,
          responses: { 204: ['The queue is gone'] },
          problems: ['not-found', 'conflict', 'queue-not-empty', 'broker-unavailable'],
        }),
      },
    )
    .post(
      '/:name/purge',
      async ({ request, params: { name } }) => {
        const { confirm, queued = 'cancel' } = await readBody(PurgeBody, request)
        await known(name)
        if (confirm !== name) throw invalid('/confirm', `must be the queue's name, "${name}"`)
        return deps.purge(name, queued as Purge)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Purge a queue',
          description:
            'Cancels every task of the queue that no worker has yet, and empties it at RabbitMQ, with messages there that are no tasks. Running tasks go on. Cancelled tasks can be replayed. With `"queued": "return"` only RabbitMQ’s queue is emptied, and the tasks that were in it wait in Postgres again.',
          params: NAME,
          body: [PurgeBody, { confirm: 'emails' }],
          responses: { 200: ['How many were cancelled and returned', PurgeResult, { cancelled: 12, returned: 0 }] },
          problems: ['not-found', 'broker-unavailable'],
        }),
      },
    )
    .post(
      '/:name/resend',
      async ({ params: { name } }) => {
        await known(name)
        return { returned: await deps.resend(name) }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Send again what RabbitMQ should hold',
          description:
            'For when somebody emptied the queue at RabbitMQ: tasks that were handed to it wait in Postgres again and are sent anew. A message that was there after all is a duplicate and does nothing.',
          params: NAME,
          responses: { 200: ['How many are sent again', ResendResult, { returned: 12 }] },
          problems: ['not-found'],
        }),
      },
    )
}

/** Guards hold unless the name was given once more; then only those that are asked for. */
function readGuards(request: Request, name: string): Guards {
  const { ifEmpty, ifUnused, confirm } = readQuery(DeleteQuery, request)
  if (confirm !== undefined && confirm !== name) throw invalid('/confirm', `must be the queue's name, "${name}"`)
  for (const [field, guard] of [
    ['ifEmpty', ifEmpty],
    ['ifUnused', ifUnused],
  ] as const) {
    if (guard === false && confirm === undefined) throw invalid(`/${field}`, `may be false only with confirm=${name}`)
  }
  const byDefault = confirm === undefined
  return { ifEmpty: ifEmpty ?? byDefault, ifUnused: ifUnused ?? byDefault }
}

function kept(name: string, removal: Exclude<QueueRemoval, 'deleted'>): Problem {
  switch (removal) {
    case 'unknown':
      return unknownQueue(name)
    case 'has-consumers':
      return new Problem('conflict', `The queue "${name}" has consumers: delete them first, or add confirm=${name}`)
    case 'has-live-tasks':
      return new Problem(
        'queue-not-empty',
        `The queue "${name}" has tasks that are not final: finish or purge them first, or add confirm=${name}; after that, wait for those that still run`,
      )
    case 'broker-not-empty':
      return new Problem(
        'queue-not-empty',
        `RabbitMQ holds messages in "${name}" that are no tasks yet: let a consumer take them, purge the queue, or add confirm=${name}`,
      )
    case 'broker-in-use':
      return new Problem(
        'conflict',
        `Consumers at RabbitMQ take from "${name}": end them first, or add confirm=${name}; Longshore's own leave within seconds`,
      )
    default:
      return removal satisfies never
  }
}
