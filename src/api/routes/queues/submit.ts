import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import { newTask } from '../../../submit/validate.ts'
import { QueueNameSchema } from '../../../task/topology/queue.ts'
import type { Access } from '../../access.ts'
import { asOfMessage, keptMessage, MessageFields, readMessage } from '../../message-body.ts'
import { describe } from '../../openapi/describe.ts'
import { TASK_EXAMPLE, TaskSchema } from '../../task-json.ts'
import { unknownQueue } from '../queues.ts'
import { permissionsOf, type SubmitDeps, submissionDoor } from '../tasks/submit.ts'

const MessageBody = Type.Object(MessageFields, { additionalProperties: false })

/** A task as somebody writes it who thinks in messages. */
export function queueSubmitRoutes(access: Access, deps: SubmitDeps) {
  const { rules, submit } = submissionDoor(deps)
  return new Elysia({ prefix: '/queues' }).use(access).post(
    '/:name/messages',
    async ({ request, params: { name }, principal }) => {
      const { message, submission } = await readMessage(MessageBody, request)
      // Not the name of any queue: asking the one door would blame a field of the body.
      if (!isQueueName(name)) throw unknownQueue(name)
      try {
        const task = newTask(submission({ queue: name }), rules(), permissionsOf(principal))
        task.message = keptMessage('', name, message.headers)
        return await submit(task, request)
      } catch (error) {
        if (!(error instanceof Problem)) throw error
        throw error.code === 'unknown-queue' ? unknownQueue(name) : asOfMessage(error)
      }
    },
    {
      scope: 'submit',
      parse: 'none',
      detail: describe({
        tag: 'Queues',
        summary: 'Send a message to a queue',
        description:
          'Submits a task with the body as its payload, through the same door as `POST /tasks`: it is committed when the answer comes, and RabbitMQ may be away.',
        params: { name: QueueNameSchema },
        body: [MessageBody, { body: { to: 'ada@example.com' }, headers: { tenant: 'acme' }, priority: 5 }],
        responses: {
          201: ['The task; `Location` names it', TaskSchema, { ...TASK_EXAMPLE, queue: 'emails', priority: 5 }],
        },
        problems: ['not-found', 'unknown-target', 'storage-full', 'unknown', 'overloaded', 'shutting-down'],
      }),
    },
  )
}

const QUEUE_NAME = new RegExp(QueueNameSchema.pattern ?? '')

function isQueueName(name: string): boolean {
  return QUEUE_NAME.test(name)
}
