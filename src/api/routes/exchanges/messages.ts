import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import { newTask } from '../../../submit/validate.ts'
import { RoutingKeySchema } from '../../../task/topology/exchange.ts'
import type { Access } from '../../access.ts'
import { asOfMessage, keptMessage, MessageFields, readMessage } from '../../message-body.ts'
import { describe } from '../../openapi/describe.ts'
import { TASK_EXAMPLE, TaskSchema } from '../../task-json.ts'
import { NAME, TAG, unknownExchange } from '../exchanges.ts'
import { permissionsOf, type SubmitDeps, submissionDoor } from '../tasks/submit.ts'

const MessageBody = Type.Object(
  { ...MessageFields, routingKey: Type.Optional(RoutingKeySchema) },
  { additionalProperties: false },
)

/** A task for whoever is bound, as somebody writes it who thinks in messages. */
export function exchangeMessageRoutes(access: Access, deps: SubmitDeps) {
  const { rules, submit } = submissionDoor(deps)
  return new Elysia({ prefix: '/exchanges' }).use(access).post(
    '/:name/messages',
    async ({ request, params: { name: exchange }, principal }) => {
      const { message, submission } = await readMessage(MessageBody, request)
      const { routingKey = '', headers } = message
      try {
        const task = newTask(submission({ exchange, routingKey }), rules(), permissionsOf(principal))
        task.message = keptMessage(exchange, routingKey, headers)
        return await submit(task, request)
      } catch (error) {
        if (!(error instanceof Problem)) throw error
        const isName = error.code === 'unknown-exchange' || error.errors.some(({ path }) => path === '/exchange')
        throw isName ? unknownExchange(exchange) : asOfMessage(error)
      }
    },
    {
      scope: 'submit',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Send a message to an exchange',
        description:
          'Submits a task with the body as its payload, as `POST /tasks` with `exchange` and `routingKey` does: each bound queue gets it. It is committed when the answer comes, and RabbitMQ may be away.',
        params: NAME,
        body: [MessageBody, { body: { order: 1042 }, routingKey: 'orders.eu.new', headers: { tenant: 'acme' } }],
        responses: {
          201: [
            'The task; `Location` names it',
            TaskSchema,
            {
              ...TASK_EXAMPLE,
              ...{ queue: 'exchange/orders', exchange: 'orders', routingKey: 'orders.eu.new', target: null },
              ...{ status: 'running', waitingFor: null, children: { total: 2, succeeded: 0, dead: 0, live: 2 } },
            },
          ],
        },
        problems: ['not-found', 'unroutable', 'storage-full', 'unknown', 'overloaded', 'shutting-down'],
      }),
    },
  )
}
