import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { Tracing } from '../../../runtime/telemetry/tracing.ts'
import { type Database, databaseProblem } from '../../../store/database/database.ts'
import { placesOf, readSituation, type TaskRow } from '../../../store/tasks/read/read.ts'
import type { Submitter } from '../../../submit/submitter.ts'
import type { TargetChecks } from '../../../submit/target-check.ts'
import { type Permissions, readSubmission, type SubmissionRules, SubmissionSchema } from '../../../submit/validate.ts'
import { readSubmissionLines, readSubmissions } from '../../../submit/validate-batch.ts'
import { LIMITS } from '../../../task/limits.ts'
import { allows, type Principal } from '../../../task/scope.ts'
import type { NewTask } from '../../../task/task.ts'
import type { Situation } from '../../../task/waiting-for.ts'
import type { Access } from '../../access.ts'
import { readText, SUBMISSION_BYTES } from '../../body.ts'
import { cached } from '../../cached.ts'
import { describe } from '../../openapi/describe.ts'
import { jsonResponse } from '../../response.ts'
import { TASK_EXAMPLE, TaskSchema, taskJson } from '../../task-json.ts'
import { checked } from '../../validation.ts'
import { taskResponse } from './response.ts'
import { tracedSubmission } from './trace.ts'

const NDJSON = 'application/x-ndjson'

const BatchSchema = Type.Array(SubmissionSchema, { minItems: 1, maxItems: LIMITS.batchTasks })
const BatchResult = Type.Object({
  ids: Type.Array(Type.String({ format: 'uuid' }), { description: 'In the order of the submissions' }),
})
const SUBMISSION_EXAMPLE = {
  type: 'invoice.created',
  payload: { invoice: 1042, total: 99.5 },
  target: { type: 'http', url: 'https://api.example.com/hook' },
  delay: '15m',
  idempotencyKey: 'invoice-1042',
}
const BATCH_EXAMPLE = [
  { queue: 'emails', payload: { to: 'ada@example.com' } },
  { queue: 'emails', payload: { to: 'alan@example.com' }, priority: 9 },
  { exchange: 'orders', routingKey: 'orders.eu.new', payload: { order: 1042 } },
]
const SUBMIT_PROBLEMS = [
  'unknown-queue',
  'unknown-exchange',
  'unroutable',
  'unknown-target',
  'unknown-handler',
  'unknown-parent',
  'parent-final',
  'idempotency-mismatch',
  'storage-full',
  'unknown',
  'shutting-down',
] as const

export interface SubmitDeps extends TargetChecks {
  pool: Database['pool']
  submitter: Submitter
  /** Where spans of submissions go; by default nowhere. */
  tracing?: Tracing
}

/** What every route does that submits one task. */
export function submissionDoor(deps: SubmitDeps) {
  const { pool, submitter } = deps
  const situation = createGlance(pool)
  return {
    /** For one request: the handlers are looked up once, however many tasks name one. */
    rules(): SubmissionRules {
      let names: readonly string[] | undefined
      return {
        check: checked,
        handlerNames() {
          names ??= deps.handlerNames()
          return names
        },
        checkUrl: deps.checkUrl,
        tables: deps.tables,
      }
    },
    /** Stores the task and answers with it, or with the first one of its idempotency key. */
    async submit(task: NewTask, request: Request): Promise<Response> {
      const submitted = await tracedSubmission(deps.tracing, request, [task], () => submitter.submit(task))
      const headers = { location: `/api/v1/tasks/${submitted.id}` }
      if (!submitted.created) return taskResponse(pool, submitted.id, 200, headers)
      return jsonResponse(taskJson(submitted.row, await situation(submitted.row)), 201, headers)
    },
  }
}

export function taskSubmitRoutes(access: Access, deps: SubmitDeps) {
  const { submitter } = deps
  const { rules, submit } = submissionDoor(deps)

  return new Elysia({ prefix: '/tasks' })
    .use(access)
    .post(
      '/',
      async ({ request, principal }) => {
        const text = await readText(request, SUBMISSION_BYTES)
        return submit(readSubmission(text, rules(), permissionsOf(principal)), request)
      },
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          tag: 'Tasks',
          summary: 'Submit a task',
          description:
            'Stores the task; it is committed when the answer comes. The same `idempotencyKey` again on the same queue, or exchange, gives the first task with 200, or 409 when the body is another (the payload is compared as text). With `exchange` and `routingKey` instead of `queue`, each queue that is bound gets the task: one queue the task itself, several a child each, which the task waits for; none is 422 `unroutable`. On the queue `default` a target is required; one other than `http` needs the scope `operate`. A 503 with the code `unknown` means that the task may have been stored. A `traceparent` header (W3C) is kept with the task and passed on to its target.',
          body: [SubmissionSchema, SUBMISSION_EXAMPLE],
          responses: {
            200: ['The first task with this idempotency key', TaskSchema, TASK_EXAMPLE],
            201: ['The task; `Location` names it', TaskSchema, TASK_EXAMPLE],
          },
          problems: [...SUBMIT_PROBLEMS, 'overloaded'],
        }),
      },
    )
    .post(
      '/batch',
      async ({ request, principal }) => {
        const type = request.headers.get('content-type') ?? ''
        const text = await readText(request, LIMITS.batchBytes, ['application/json', NDJSON])
        const read = type.toLowerCase().startsWith(NDJSON) ? readSubmissionLines : readSubmissions
        const tasks = read(text, rules(), permissionsOf(principal))
        const submitted = await tracedSubmission(deps.tracing, request, tasks, () => submitter.submitBatch(tasks))
        return jsonResponse(JSON.stringify({ ids: submitted.map(({ id }) => id) }), 201)
      },
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          tag: 'Tasks',
          summary: 'Submit many tasks in one commit',
          description:
            'Stores up to 10,000 tasks, all or none: when one is refused, `errors` names it by its place (`/3/queue`). A task whose `idempotencyKey` is known is not stored again; its place holds the id of the first one. As a JSON array, or as NDJSON with the content type `application/x-ndjson`.',
          body: [BatchSchema, BATCH_EXAMPLE],
          ndjson: true,
          responses: { 201: ['The ids', BatchResult, { ids: [TASK_EXAMPLE.id] }] },
          problems: [...SUBMIT_PROBLEMS],
        }),
      },
    )
}

export function permissionsOf(principal: Principal): Permissions {
  return { operate: allows(principal, 'operate') }
}

/**
 * What stands around a task that was created just now. It may be a second old: every submission would pay for a fresh look.
 * Undefined when the database is away since: the task is committed, and that must be told.
 */
function createGlance(pool: Database['pool']) {
  const glance = cached(() => readSituation(pool))
  return async (row: TaskRow): Promise<Situation | undefined> => {
    try {
      const seen = await glance()
      return seen.queues.has(row.queue) ? { ...seen, now: row.created_at } : await readSituation(pool, placesOf([row]))
    } catch (error) {
      if (databaseProblem(error)) return undefined
      throw error
    }
  }
}
