import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { invalid, Problem } from '../../../runtime/errors.ts'
import type { Database } from '../../../store/database/database.ts'
import type { Mended } from '../../../store/tasks/dead-letters/mend.ts'
import type { Replayed, ReplayOptions } from '../../../store/tasks/dead-letters/replay.ts'
import { LIMITS } from '../../../task/limits.ts'
import type { Access } from '../../access.ts'
import { checkEnvelope, memberText, parseJson, readOptionalBody, readText } from '../../body.ts'
import { describe } from '../../openapi/describe.ts'
import { TASK_EXAMPLE, TaskSchema } from '../../task-json.ts'
import { checked, refuse } from '../../validation.ts'
import { only } from './actions.ts'
import { TASK_ID, taskId, taskResponse, unknownTask } from './response.ts'

/** What can be done with tasks that ended badly. */
export interface ReplayDeps {
  pool: Database['pool']
  /** Answers in the order of the ids, and may be repeated. */
  replayTasks(ids: string[], options?: ReplayOptions): Promise<Replayed[]>
  /** `by` says who, for the task's log. */
  mendTask(id: string, payload: string, by: string): Promise<Mended>
}

export const ReplayQueue = Type.String({
  maxLength: 128,
  description:
    'Send it to this queue instead of its own; its idempotencyKey stays behind, and its children keep theirs',
  examples: ['emails-again'],
})
const ReplayBody = Type.Object({ queue: Type.Optional(ReplayQueue) }, { additionalProperties: false })
const MendBody = Type.Object(
  { payload: Type.Unknown({ description: 'Any JSON up to 1 MiB, kept as the very text' }) },
  { additionalProperties: false },
)

const DEAD_EXAMPLE = {
  ...TASK_EXAMPLE,
  status: 'dead',
  attempt: 1,
  failures: 1,
  error: '404 Not Found',
  waitingFor: null,
}

/** Mending and replaying, one task at a time. */
export function taskReplayRoutes(access: Access, deps: ReplayDeps) {
  const { pool } = deps
  return new Elysia({ prefix: '/tasks' })
    .use(access)
    .patch(
      '/:id',
      async ({ request, params, principal }) => {
        const id = taskId(params.id)
        const payload = await readPayload(request)
        const mended = await deps.mendTask(id, payload, `key "${principal.name}" (${principal.keyId})`)
        switch (mended) {
          case 'mended':
            return taskResponse(pool, id)
          case 'not-mendable':
            throw new Problem(
              'illegal-transition',
              `The payload of task "${id}" can be replaced only while it is dead or cancelled, and its own work not done`,
            )
          case 'unknown':
            throw unknownTask(id)
          default:
            return mended satisfies never
        }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: 'Tasks',
          summary: 'Mend a dead letter',
          description:
            'Replaces the payload of a dead or cancelled task; a replay delivers the new one. What it was stays in its `logs`, cut to the length of a line, and the bytes of a message that became it in `message`. One whose message was not readable can be replayed from then on.',
          params: TASK_ID,
          body: [MendBody, { payload: { invoice: 1042, total: 99.5 } }],
          responses: {
            200: [
              'The task',
              TaskSchema,
              { ...DEAD_EXAMPLE, logs: ['payload replaced by key "ops" (k1); it was: {"invoice":"1042"}'] },
            ],
          },
          problems: ['not-found', 'illegal-transition'],
        }),
      },
    )
    .post(
      '/:id/replay',
      async ({ request, params }) => {
        const id = taskId(params.id)
        const { queue } = await readOptionalBody(ReplayBody, request)
        const outcome = only(await deps.replayTasks([id], { queue }))
        switch (outcome) {
          case 'replayed':
            return taskResponse(pool, id)
          case 'not-replayable':
            throw new Problem(
              'illegal-transition',
              `The task "${id}" is neither dead nor cancelled; submit a new one to do it again`,
            )
          case 'unreadable':
            throw new Problem(
              'illegal-transition',
              `The body of the message that task "${id}" came as was not readable: give it a payload first (PATCH /api/v1/tasks/${id})`,
            )
          case 'not-movable':
            throw new Problem(
              'conflict',
              `The task "${id}" cannot go to queue "${queue}": it is one of a fan-out, a parent whose own work is done, or has no target, which the queue "default" needs`,
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
        detail: describe({
          tag: 'Tasks',
          summary: 'Replay a task',
          description:
            'A dead or cancelled task is due now, its failures forgotten; attempt numbers go on rising. With `queue` it goes to another one. A parent is replayed with its dead and cancelled children. A dead letter whose message was not readable (`message.unreadable`) is mended first. The body may be left out.',
          params: TASK_ID,
          body: [ReplayBody, { queue: 'emails-again' }],
          optionalBody: true,
          responses: { 200: ['The task', TaskSchema, TASK_EXAMPLE] },
          problems: ['not-found', 'illegal-transition', 'conflict', 'unknown-queue'],
        }),
      },
    )
}

/** The payload in the body, as the very text. */
async function readPayload(request: Request): Promise<string> {
  const text = await readText(request, LIMITS.payloadBytes * 2)
  checked(MendBody, parseJson(text))
  checkEnvelope(text)
  const payload = memberText(text, 'payload') ?? refuse('/payload', 'is required')
  if (Buffer.byteLength(payload) <= LIMITS.payloadBytes) return payload
  throw invalid('/payload', `may have at most ${LIMITS.payloadBytes} bytes`, 'too-large')
}
