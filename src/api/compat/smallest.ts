import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { WantedTopology } from '../../store/topology/ensure.ts'
import { type Access, refuseForeignPage } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { problemResponse } from '../problem.ts'
import { type EnsureDeps, ensuredSubmits } from './ensured.ts'
import { orBadRequest, readOldBody } from './old-body.ts'
import { type OldSubmitDeps, oldTask, submitOld } from './old-task.ts'

export interface SmallestDeps extends OldSubmitDeps, EnsureDeps {}

const QUEUE = 'task_queue'

/** As the old worker declares it: durable, and nothing else. */
const WANTED: WantedTopology = {
  queues: [
    {
      name: QUEUE,
      policy: { type: 'classic', deadLetter: false },
      consumers: [
        {
          target: { type: 'noop', log: true, delayPerDot: '1s' },
          concurrency: 10,
          // A dot is a second: texts with up to 3,600 of them.
          timeoutMs: 3_600_000,
          paused: false,
        },
      ],
    },
  ],
}

const JobBody = Type.Object(
  { message: Type.String({ minLength: 1, description: 'The text' }) },
  { additionalProperties: false },
)
const Accepted = Type.Object({ id: Type.String({ format: 'uuid' }), message: Type.String() })
const EXAMPLE = { id: '019b7a3e-5c00-7000-8000-000000000001', message: ' ___ Sent: Hello...' }
const PROBLEMS = ['bad-request', 'too-large', 'storage-full', 'unknown', 'overloaded', 'shutting-down'] as const
const HEAD = 'This route adds a job when it is asked by GET; HEAD would add none'
const older = { tag: 'compat', older: { invalid: 'bad-request' } } as const

/** A web server that adds a job, whose worker prints it: the text is the payload, the print is a line in the task's log. */
export function smallestRoutes(access: Access, deps: SmallestDeps) {
  const ensured = ensuredSubmits(deps, WANTED)
  async function accept(request: Request, text: string): Promise<Response> {
    if (text === '') throw invalid('/message', 'must not be empty', 'bad-request')
    const { id } = await ensured(() => submitOld(deps, request, oldTask(QUEUE, JSON.stringify(text))))
    return Response.json({ id, message: ` ___ Sent: ${text}` }, { status: 202 })
  }
  const fromPath =
    (prefix: string) =>
    ({ request }: { request: Request }) => {
      // A look must not add a job, and neither must a link or an image on another site's page.
      if (request.method === 'HEAD') return problemResponse(new Problem('method-not-allowed', HEAD), { allow: 'GET' })
      refuseForeignPage(request)
      return accept(request, decodeURIComponent(new URL(request.url).pathname.slice(prefix.length)))
    }
  const pathRoute = (operationId: string) => ({
    scope: 'submit' as const,
    detail: {
      operationId,
      ...describe({
        ...older,
        summary: 'Add a job by its text in the path',
        description:
          'The text is the rest of the path, URL-encoded (UTF-8), slashes included. What follows a bare `?` or `#` is not of it, and `.` and `..` between slashes are steps in the path: send such texts by POST.',
        params: { message: Type.String({ description: 'The text; it may hold slashes' }) },
        responses: { 202: ['The job is accepted', Accepted, EXAMPLE] },
        problems: PROBLEMS,
      }),
    },
  })

  return new Elysia()
    .use(access)
    .post(
      '/create-job',
      async ({ request }) => {
        const { body } = await orBadRequest(() => readOldBody(JobBody, request))
        return accept(request, body.message)
      },
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Add a job',
          description:
            'Accepted and committed, whatever the broker does. Its consumer writes the text to the log of the task and takes one second for each dot in it.',
          body: [JobBody, { message: 'Hello...' }],
          responses: { 202: ['The job is accepted', Accepted, EXAMPLE] },
          problems: PROBLEMS,
        }),
      },
    )
    .get('/create-job/*', fromPath('/create-job/'), pathRoute('createJobByPath'))
    .get('/add-job/*', fromPath('/add-job/'), pathRoute('addJobByPath'))
}
