import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import type { Database } from '../../../store/database/database.ts'
import type { Cancelled } from '../../../store/tasks/cancel.ts'
import type { ForeignReport, Reported } from '../../../store/tasks/foreign-report.ts'
import type { Removed } from '../../../store/tasks/remove.ts'
import type { RunNow } from '../../../store/tasks/run-now.ts'
import { LIMITS, truncate } from '../../../task/limits.ts'
import type { Access } from '../../access.ts'
import { checkEnvelope, memberText, parseJson, readText } from '../../body.ts'
import { describe } from '../../openapi/describe.ts'
import { noContent } from '../../response.ts'
import { TASK_EXAMPLE, TaskSchema } from '../../task-json.ts'
import { checked } from '../../validation.ts'
import { TASK_ID, taskId, taskResponse, unknownTask } from './response.ts'

/** What can be done with tasks that exist. Each answers in the order of the ids and may be repeated. */
export interface ActionDeps {
  pool: Database['pool']
  cancelTasks(ids: string[]): Promise<Cancelled[]>
  runNow(ids: string[]): Promise<RunNow[]>
  deleteTasks(ids: string[]): Promise<Removed[]>
  reportStatus(id: string, report: ForeignReport, keyId: string): Promise<Reported>
}

const REPORTED: ForeignReport['status'][] = ['running', 'pending', 'retrying', 'succeeded', 'dead', 'cancelled']

/** The result, the error and what surrounds them, in escapes. */
const REPORT_BYTES = LIMITS.resultBytes + 64 * 1024

const ReportSchema = Type.Object(
  {
    status: Type.Union(
      REPORTED.map((status) => Type.Literal(status)),
      {
        description:
          '`running` takes the task; `retrying` is a failure that may be tried again; `pending` gives it back',
      },
    ),
    attempt: Type.Optional(
      Type.Integer({
        minimum: 1,
        description: 'The attempt that is reported; required once the task has had a second one',
      }),
    ),
    queue: Type.Optional(
      Type.String({
        maxLength: 128,
        description:
          'Of a message with the header `x-longshore-parent`, whose value is the id then: the queue that it was taken from',
      }),
    ),
    result: Type.Optional(Type.Unknown({ description: 'Any JSON up to 64 KiB' })),
    error: Type.Optional(Type.String({ description: 'Kept up to 4 KiB' })),
  },
  { additionalProperties: false },
)

export function taskActionRoutes(access: Access, deps: ActionDeps) {
  const { pool } = deps
  const action = (
    summary: string,
    description: string,
    problems: ('illegal-transition' | 'conflict')[] = ['illegal-transition'],
  ) =>
    describe({
      tag: 'Tasks',
      summary,
      description,
      params: TASK_ID,
      responses: { 200: ['The task', TaskSchema, TASK_EXAMPLE] },
      problems: ['not-found', ...problems],
    })

  return new Elysia({ prefix: '/tasks' })
    .use(access)
    .post(
      '/:id/cancel',
      async ({ params }) => {
        const id = taskId(params.id)
        const outcome = only(await deps.cancelTasks([id]))
        switch (outcome) {
          case 'cancelled':
          case 'requested':
            return taskResponse(pool, id, outcome === 'cancelled' ? 200 : 202)
          case 'final':
            throw new Problem('illegal-transition', `The task "${id}" is final already`)
          case 'unknown':
            throw unknownTask(id)
          default:
            return outcome satisfies never
        }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: 'Tasks',
          summary: 'Cancel a task',
          description:
            'A waiting task is cancelled at once. A running one is asked to stop: whatever ends first is recorded. Children are cancelled with their parent.',
          params: TASK_ID,
          responses: {
            200: ['The cancelled task', TaskSchema, { ...TASK_EXAMPLE, status: 'cancelled', waitingFor: null }],
            202: [
              'It, or a child of it, runs: it was asked to stop',
              TaskSchema,
              { ...TASK_EXAMPLE, status: 'running', attempt: 1, waitingFor: null },
            ],
          },
          problems: ['not-found', 'illegal-transition'],
        }),
      },
    )
    .post(
      '/:id/run-now',
      async ({ params }) => {
        const id = taskId(params.id)
        const outcome = only(await deps.runNow([id]))
        switch (outcome) {
          case 'due':
            return taskResponse(pool, id)
          case 'not-waiting':
            throw new Problem(
              'illegal-transition',
              `The task "${id}" is not waiting: only pending and retrying tasks can be made due`,
            )
          case 'unknown':
            throw unknownTask(id)
          default:
            return outcome satisfies never
        }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: action(
          'Make a task due now',
          'A task that waits for its time, or for its next attempt, is due at once.',
        ),
      },
    )
    .delete(
      '/:id',
      async ({ params }) => {
        const id = taskId(params.id)
        const outcome = only(await deps.deleteTasks([id]))
        switch (outcome) {
          case 'deleted':
            return noContent()
          case 'not-final':
            throw new Problem('illegal-transition', `The task "${id}" is not final; cancel it first`)
          case 'has-children':
            throw new Problem('conflict', `The task "${id}" has children; delete them first`)
          case 'in-broker':
            throw new Problem(
              'conflict',
              `RabbitMQ may still have the message of task "${id}": delete it when that has come, or a day after the task ended`,
            )
          case 'unknown':
            throw unknownTask(id)
          default:
            return outcome satisfies never
        }
      },
      {
        scope: 'operate',
        detail: describe({
          tag: 'Tasks',
          summary: 'Delete a task',
          description:
            'Removes a final task for good; it still counts in the accounting, as pruned. One that was cancelled while RabbitMQ had its message stays until that has come, for a day at most.',
          params: TASK_ID,
          responses: { 204: ['The task is gone'] },
          problems: ['not-found', 'illegal-transition', 'conflict'],
        }),
      },
    )
    .put(
      '/:id/status',
      async ({ request, params, principal }) => {
        const id = taskId(params.id)
        const report = await readReport(request)
        const outcome = await deps.reportStatus(id, report, principal.keyId)
        switch (outcome) {
          case 'ok':
            return taskResponse(pool, id)
          case 'illegal':
            throw new Problem('illegal-transition', `The task "${id}" cannot become ${report.status} by this key now`)
          case 'attempt-required':
            throw new Problem('conflict', `The task "${id}" has had more than one attempt: say which one by "attempt"`)
          case 'stale':
            throw new Problem('conflict', `Attempt ${report.attempt} of the task "${id}" is not the current one`)
          case 'unknown':
            throw unknownTask(id)
          default:
            return outcome satisfies never
        }
      },
      {
        scope: ['work', 'operate'],
        parse: 'none',
        detail: describe({
          tag: 'Tasks',
          summary: 'Report on a task from outside',
          description:
            'For consumers that are not Longshore’s: `running` takes the task until its timeout, any other status ends that attempt.',
          params: TASK_ID,
          body: [ReportSchema, { status: 'succeeded', attempt: 1, result: { delivered: true } }],
          responses: {
            200: ['The task', TaskSchema, { ...TASK_EXAMPLE, status: 'succeeded', attempt: 1, waitingFor: null }],
          },
          problems: ['not-found', 'illegal-transition', 'conflict'],
        }),
      },
    )
}

export function only<T>(outcomes: { outcome: T }[]): T {
  const [first] = outcomes
  if (!first) throw new Error('an action on one task gave no outcome')
  return first.outcome
}

async function readReport(request: Request) {
  const text = await readText(request, REPORT_BYTES)
  const { result: _, error, ...report } = checked(ReportSchema, parseJson(text))
  checkEnvelope(text)
  const result = memberText(text, 'result')
  if (result !== undefined && Buffer.byteLength(result) > LIMITS.resultBytes) {
    throw new Problem('too-large', `The result may have at most ${LIMITS.resultBytes} bytes`, [
      { path: '/result', message: `may have at most ${LIMITS.resultBytes} bytes` },
    ])
  }
  return { ...report, result, error: error === undefined ? undefined : truncate(error, LIMITS.errorBytes) }
}
