import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { v7 as uuidv7 } from 'uuid'
import { Problem } from '../../runtime/errors.ts'
import type { DataTable } from '../../store/data-table.ts'
import type { Database } from '../../store/database/database.ts'
import { childrenOfParents } from '../../store/tasks/family/children.ts'
import { listTasks } from '../../store/tasks/read/list.ts'
import { readTask } from '../../store/tasks/read/read.ts'
import type { Submitted } from '../../submit/submitter.ts'
import type { BrokerKind } from '../../task/ledger.ts'
import { LIMITS } from '../../task/limits.ts'
import type { NewTask } from '../../task/task.ts'
import { lineOf } from '../../task/topology/exchange.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { DEFAULT_LIMIT, PageQuery, uuidIn } from '../page.ts'
import { jsonResponse } from '../response.ts'
import { tracedSubmission } from '../routes/tasks/trace.ts'
import { nextOf, placeAfter } from '../task-filter.ts'
import { readQuery } from '../validation.ts'
import { type EnsureDeps, ensuredSubmits } from './ensured.ts'
import { JOB_EXAMPLE, JobSchema, jobJson } from './job-fan-out/job-json.ts'
import { EXCHANGE, JOBS_TABLE, jobTopology } from './job-fan-out/topology.ts'
import { orUnprocessable, readOldBody } from './old-body.ts'
import { type OldSubmitDeps, oldTask } from './old-task.ts'

export interface JobDeps extends Pick<OldSubmitDeps, 'tracing'>, EnsureDeps {
  pool: Database['pool']
  /** Stores a task that is addressed to an exchange: a parent, with a child for each bound queue. Rejects with a Problem. */
  submitToExchange(task: NewTask): Promise<Submitted>
  /** Makes the table where targets of type table write, unless it is there. */
  ensureTable(table: DataTable): Promise<void>
  broker: BrokerKind
}

const JobBody = Type.Object(
  {
    type: Type.String({ minLength: 1, maxLength: LIMITS.typeLength, description: 'What kind of job it is' }),
    payload: Type.Unknown({ description: 'Any JSON up to 1 MiB; kept and delivered as the very text that was sent' }),
  },
  { additionalProperties: false },
)
const ListQuery = Type.Object(PageQuery, { additionalProperties: false })
const Made = Type.Object({ id: Type.String({ format: 'uuid' }), status: Type.Literal('PENDING') })
const older = { tag: 'compat', older: { invalid: 'validation' } } as const

/** Jobs that a database and a CSV file both get, with a status for a UI that consumes nothing by asking. */
export function jobRoutes(access: Access, deps: JobDeps) {
  const { pool } = deps
  const ensureTopology = async (wanted: Parameters<JobDeps['ensureTopology']>[0]) => {
    await deps.ensureTable(JOBS_TABLE)
    await deps.ensureTopology(wanted)
  }
  const ensured = ensuredSubmits({ ensureTopology }, jobTopology(deps.broker))

  return new Elysia({ prefix: '/api/jobs' })
    .use(access)
    .post(
      '/',
      async ({ request, set }) => {
        const { body, raw } = await orUnprocessable(() => readOldBody(JobBody, request, 'payload'))
        const id = uuidv7()
        const message = `{"id":"${id}","type":${JSON.stringify(body.type)},"payload":${raw}}`
        const task = { ...oldTask(EXCHANGE, message, { id, type: body.type }), exchange: EXCHANGE, routingKey: '' }
        await ensured(() => tracedSubmission(deps.tracing, request, [task], () => deps.submitToExchange(task)))
        set.status = 201
        set.headers.location = `/api/jobs/${id}`
        return { id, status: 'PENDING' as const }
      },
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Submit a job',
          description:
            'Committed when the answer comes. The job is published to `fanout_exchange` and goes to the table `jobs_done` and to the file `job_status.csv`, each tried again on its own; its end is told to `notification_queue`.',
          body: [JobBody, { type: JOB_EXAMPLE.type, payload: JOB_EXAMPLE.payload }],
          responses: { 201: ['The job', Made, { id: JOB_EXAMPLE.id, status: 'PENDING' }] },
          problems: ['storage-full', 'unknown', 'overloaded', 'shutting-down'],
        }),
      },
    )
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
        const page = await listTasks(pool, { queue: lineOf(EXCHANGE), origin: 'compat' }, limit, placeAfter(after))
        const children = await childrenOfParents(
          pool,
          page.rows.map(({ id }) => id),
        )
        const items = page.rows.map((row) => jobJson(row, children.get(row.id) ?? []))
        const next = nextOf(page.next)
        return jsonResponse(`[${items.join(',')}]`, 200, next === null ? {} : nextHeaders(next, limit))
      },
      {
        scope: 'read',
        detail: describe({
          ...older,
          summary: 'List jobs',
          description:
            'The newest first. When there are more, the header `Link` names the next page, and `X-Next` holds its `after`.',
          query: ListQuery,
          responses: { 200: ['A page of jobs', Type.Array(JobSchema), [JOB_EXAMPLE]] },
        }),
      },
    )
    .get(
      '/:id',
      async ({ params }) => {
        const id = uuidIn(params.id)
        const row = id === undefined ? undefined : await readTask(pool, id)
        if (row?.exchange !== EXCHANGE || row.origin !== 'compat')
          throw new Problem('not-found', `There is no job "${params.id.slice(0, 100)}"`)
        const children = await childrenOfParents(pool, [row.id])
        return jsonResponse(jobJson(row, children.get(row.id) ?? []))
      },
      {
        scope: 'read',
        detail: describe({
          ...older,
          summary: 'Read a job',
          description: 'Its status is that of its sinks. Asking changes nothing, however often and by however many.',
          params: { id: Type.String({ format: 'uuid', description: "The job's id" }) },
          responses: { 200: ['The job', JobSchema, JOB_EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
}

function nextHeaders(next: string, limit: number): Record<string, string> {
  return { 'x-next': next, link: `</api/jobs?limit=${limit}&after=${next}>; rel="next"` }
}
