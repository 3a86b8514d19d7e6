import type { Static } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { v7 as uuidv7 } from 'uuid'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { Database } from '../../store/database/database.ts'
import type { ForeignReport, Reported } from '../../store/tasks/foreign-report.ts'
import { readTask, type TaskRow } from '../../store/tasks/read/read.ts'
import type { WantedTopology } from '../../store/topology/ensure.ts'
import { isFinal } from '../../task/status.ts'
import type { Access } from '../access.ts'
import { readUntyped, SMALL_BODY_BYTES } from '../body.ts'
import { describe } from '../openapi/describe.ts'
import { unknownTask } from '../routes/tasks/response.ts'
import { checked, readQuery } from '../validation.ts'
import { type EnsureDeps, ensuredSubmits } from './ensured.ts'
import { orBadRequest, parseOldBody, readOldBody } from './old-body.ts'
import { type OldSubmitDeps, oldTask, submitOld } from './old-task.ts'
import * as schema from './task-service/schema.ts'

export interface TaskServiceDeps extends OldSubmitDeps, EnsureDeps {
  pool: Database['pool']
  /** Applies what a consumer that is not ours says of a task. */
  reportStatus(id: string, report: ForeignReport, keyId: string): Promise<Reported>
}

const QUEUE = 'ipr.task'

/** A consumer that imitates work, as the old one did; change its shares, or delete it and let your own consumers report. */
const WANTED: WantedTopology = {
  queues: [
    {
      name: QUEUE,
      consumers: [
        {
          target: { type: 'noop', delay: { min: '1s', max: '8s' }, failRate: 0.2, deadRate: 0.1 },
          concurrency: 10,
          timeoutMs: 30_000,
          paused: false,
        },
      ],
    },
  ],
}

const older = { tag: 'compat', older: { invalid: 'bad-request' } } as const

/** Tasks with a text, a status that can be read, and consumers that report it over REST. */
export function taskServiceRoutes(access: Access, deps: TaskServiceDeps) {
  const ensured = ensuredSubmits(deps, WANTED)

  return new Elysia()
    .use(access)
    .post(
      '/api/v1/create-task',
      async ({ request, set }) => {
        const { body } = await orBadRequest(() => readOldBody(schema.NewBody, request))
        // The id is in the message, too: old consumers look for it there, to report.
        const id = uuidv7()
        const payload = JSON.stringify({ id, text: body.text })
        await ensured(() => submitOld(deps, request, oldTask(QUEUE, payload, { id })))
        set.status = 201
        return { id, status: schema.SHOWN.pending }
      },
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Make a task',
          description: 'On the queue `ipr.task`; committed when the answer comes. The message is `{ id, text }`.',
          body: [schema.NewBody, { text: schema.DATA_EXAMPLE.text }],
          responses: { 201: ['The task', schema.Made, { id: schema.DATA_EXAMPLE.id, status: 'NEW_TASK' }] },
          problems: ['storage-full', 'unknown', 'overloaded', 'shutting-down'],
        }),
      },
    )
    .get(
      '/api/v1/get-task-data',
      async ({ request }) => {
        const { taskId } = await orBadRequest(() => readQuery(schema.DataQuery, request))
        return shown(await known(taskId))
      },
      {
        scope: 'read',
        detail: describe({
          ...older,
          summary: 'Read a task',
          description: 'Of the queue `ipr.task`; others are unknown here.',
          query: schema.DataQuery,
          responses: { 200: ['The task', schema.Data, schema.DATA_EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
    .put(
      '/api/v1/update-task-status',
      async ({ request, principal }) => {
        const { taskId, taskStatus, attempt } = await orBadRequest(() => readReport(request))
        const task = await known(taskId)
        if (!isThere(task, taskStatus)) {
          checkAttempt(task, attempt)
          const report = { status: schema.MEANT[taskStatus], attempt, error: 'reported by its consumer' }
          refuse(await deps.reportStatus(task.id, report, principal.keyId), task.id, taskStatus)
        }
        return shown(await known(taskId))
      },
      {
        scope: ['work', 'operate'],
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Report the status of a task',
          description:
            'For consumers of `ipr.task` that are not Longshore’s; each field in the query or in a JSON body. IN_PROGRESS takes the task for the key until its timeout; of the one that has it, SUCCESS and ERROR end it, WAIT_WORK says that it failed and shall be tried again, NEW_TASK gives it back. Report before you ack the message.',
          query: schema.ReportPart,
          body: [schema.ReportPart, { taskId: schema.DATA_EXAMPLE.id, taskStatus: 'IN_PROGRESS' }],
          optionalBody: true,
          responses: { 200: ['The task as it is now', schema.Data, schema.DATA_EXAMPLE] },
          problems: ['not-found', 'illegal-transition', 'conflict'],
        }),
      },
    )

  async function known(id: string): Promise<TaskRow> {
    const row = await readTask(deps.pool, id.toLowerCase())
    if (row?.queue !== QUEUE) throw unknownTask(id)
    return row
  }
}

/** What is asked for is so already: a task that waits does, and who asks for it may not know that we hand it over ourselves. */
function isThere({ status, attempt }: TaskRow, asked: schema.OldStatus): boolean {
  const waits = !isFinal(status) && status !== 'running'
  return waits && (asked === 'WAIT_WORK' || (asked === 'NEW_TASK' && status === 'pending' && attempt === 0))
}

/** Who begins a second attempt without its number could never end it. */
function checkAttempt({ id, status, attempt: last }: TaskRow, attempt: number | undefined): void {
  const waits = !isFinal(status) && status !== 'running'
  if (attempt === undefined && waits && last > 0) throw attemptRequired(id)
}

function refuse(reported: Reported, id: string, asked: schema.OldStatus): void {
  switch (reported) {
    case 'ok':
      return
    case 'illegal':
      throw new Problem('illegal-transition', `The task "${id}" cannot become ${asked} by this key now`)
    case 'attempt-required':
      throw attemptRequired(id)
    case 'stale':
      throw new Problem(
        'conflict',
        `The report is about another attempt of the task "${id}" than the one that counts now`,
      )
    case 'unknown':
      throw unknownTask(id)
    default:
      reported satisfies never
  }
}

function attemptRequired(id: string): Problem {
  const detail = `The task "${id}" has had an attempt before: say by "attempt" which one this is about (header x-longshore-attempt of the message)`
  return new Problem('conflict', detail)
}

/** The report from query and body together. */
async function readReport(request: Request): Promise<Static<typeof schema.Report>> {
  const query = readQuery(schema.ReportPart, request)
  const text = await readUntyped(request, SMALL_BODY_BYTES)
  const body = text.trim() === '' ? {} : parseOldBody(schema.ReportPart, text).body
  const both = Object.keys(body).find(
    (name) => name in query && query[name as keyof typeof query] !== body[name as keyof typeof body],
  )
  if (both !== undefined) throw invalid(`/${both}`, 'says one thing in the query and another in the body')
  return checked(schema.Report, { ...query, ...body })
}

/** A message of somebody else's may be of any form. */
function textOf(payload: string): string {
  const value: unknown = JSON.parse(payload)
  if (typeof value === 'string') return value
  const { text, raw } = (typeof value === 'object' && value !== null ? value : {}) as { text?: unknown; raw?: unknown }
  return typeof text === 'string' ? text : typeof raw === 'string' ? raw : payload
}

function shown(row: TaskRow): Static<typeof schema.Data> {
  return {
    id: row.id,
    text: textOf(row.payload),
    status: schema.SHOWN[row.status],
    dateCreate: row.created_at,
    dateProcessing: row.started_at,
  }
}
