import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { DURATION_PATTERN, formatDuration, parseDuration } from '../../runtime/duration.ts'
import { invalid } from '../../runtime/errors.ts'
import type { Ledger } from '../../task/ledger.ts'
import {
  BeatsSchema,
  ClaimsSchema,
  LocksSchema,
  OutcomesSchema,
  TokensSchema,
  WORKER_LIMITS,
} from '../../task/worker-protocol.ts'
import type { Access } from '../access.ts'
import { readBody } from '../body.ts'
import { describe } from '../openapi/describe.ts'
import { readQuery } from '../validation.ts'
import { readClaims, readOutcomes } from '../workers/bodies.ts'
import type { WorkerDoor } from '../workers/door.ts'
import type { WorkerNotices } from '../workers/notices.ts'
import {
  BEATS_ANSWER,
  BEATS_EXAMPLE,
  BeatsResult,
  CLAIMS_ANSWER,
  CLAIMS_EXAMPLE,
  ClaimsResult,
  LOCKS_ANSWER,
  LOCKS_EXAMPLE,
  LocksResult,
  NOTICES_ANSWER,
  NoticesResult,
  OUTCOMES_ANSWER,
  OUTCOMES_EXAMPLE,
  OutcomesResult,
  TOKENS_ANSWER,
  TOKENS_EXAMPLE,
  TokensResult,
} from './worker-protocol/examples.ts'

const LONGEST_WAIT_MS = 60_000
const NoticesQuery = Type.Object(
  {
    within: Type.Optional(
      Type.String({ pattern: DURATION_PATTERN, default: '20s', description: 'How long to wait, at most 1m' }),
    ),
    after: Type.Optional(
      Type.String({ maxLength: 64, description: 'The `position` of the last answer: news since then count' }),
    ),
  },
  { additionalProperties: false },
)

export interface WorkerProtocolDeps {
  door: WorkerDoor
  ledger: Pick<Ledger, 'takeTokens'>
  notices: WorkerNotices
}

/** The port `Ledger` over HTTP, for workers without a database. Every call may be repeated. */
export function workerProtocolRoutes(access: Access, { door, ledger, notices }: WorkerProtocolDeps) {
  return new Elysia()
    .use(access)
    .post(
      '/claims',
      async ({ request, principal }) => ({ answers: await door.claim(await readClaims(request), principal.keyId) }),
      {
        scope: 'work',
        parse: 'none',
        detail: describe({
          tag: 'Workers',
          summary: 'Claim what deliveries stand for',
          description:
            'Judges messages of one queue in their order and takes those that are to be run. What is claimed and not started within 5 s is to be given back (outcome `returned`). The same `claimId` again gives the same answer. Ack a message after its outcome is stored, or at once when the answer says so.',
          body: [ClaimsSchema, CLAIMS_EXAMPLE],
          responses: { 200: ['What each delivery is', ClaimsResult, CLAIMS_ANSWER] },
          problems: ['foreign-node', 'unknown-node', 'unstorable', 'storage-full'],
        }),
      },
    )
    .post(
      '/outcomes',
      async ({ request, principal }) => ({ settled: await door.settle(await readOutcomes(request), principal.keyId) }),
      {
        scope: 'work',
        parse: 'none',
        detail: describe({
          tag: 'Workers',
          summary: 'Tell how attempts ended',
          description:
            'Writes progress and log lines of running attempts, then ends attempts, in one commit. An attempt that is not this worker’s (any more) is `late`, and nothing is written for it, so a call that is repeated does no harm. Ack the messages after the answer.',
          body: [OutcomesSchema, OUTCOMES_EXAMPLE],
          responses: { 200: ['What became of each', OutcomesResult, OUTCOMES_ANSWER] },
          problems: ['foreign-node', 'unstorable', 'storage-full'],
        }),
      },
    )
    .post(
      '/beats',
      async ({ request, principal }) =>
        door.beat(await readBody(BeatsSchema, request, WORKER_LIMITS.beatBytes), principal.keyId),
      {
        scope: 'work',
        parse: 'none',
        detail: describe({
          tag: 'Workers',
          summary: 'Join, live, leave',
          description:
            'A worker beats every 5 s with all that it holds; the first beat of an id carries `join`, the last one may carry `leave`. Without a beat for 15 s it is dead for good, and its tasks are run elsewhere. The answer tells what to cancel, and, when `topology` was sent, the consumers and queues whenever they differ from that digest; targets come with their secrets.',
          body: [BeatsSchema, BEATS_EXAMPLE],
          responses: { 200: ['What the worker has to know', BeatsResult, BEATS_ANSWER] },
          problems: ['foreign-node', 'other-broker', 'conflict'],
        }),
      },
    )
    .get(
      '/notices',
      async ({ request }) => {
        const { within = '20s', after } = readQuery(NoticesQuery, request)
        const ms = parseDuration(within) ?? 0
        if (ms > LONGEST_WAIT_MS) throw invalid('/within', `may be at most ${formatDuration(LONGEST_WAIT_MS)}`)
        return notices.next(after, ms)
      },
      {
        scope: 'work',
        detail: describe({
          tag: 'Workers',
          summary: 'Wait for news',
          description:
            'Answers as soon as a queue or consumer changes or a running task is to be cancelled, else after `within`. It is a hint: a beat tells what is new, and beats find out by themselves.',
          query: NoticesQuery,
          responses: { 200: ['Whether there is news', NoticesResult, NOTICES_ANSWER] },
        }),
      },
    )
    .post(
      '/tokens',
      async ({ request }) => {
        const { consumer, count } = await readBody(TokensSchema, request)
        return ledger.takeTokens(consumer, count)
      },
      {
        scope: 'work',
        parse: 'none',
        detail: describe({
          tag: 'Workers',
          summary: 'Take tokens of a rate limit',
          description:
            'One token starts one task. The bucket is shared by all nodes and workers. A consumer without a limit grants all.',
          body: [TokensSchema, TOKENS_EXAMPLE],
          responses: { 200: ['What was granted', TokensResult, TOKENS_ANSWER] },
        }),
      },
    )
    .post(
      '/locks',
      async ({ request, principal }) => ({
        held: await door.lock(await readBody(LocksSchema, request), principal.keyId),
      }),
      {
        scope: 'work',
        parse: 'none',
        detail: describe({
          tag: 'Workers',
          summary: 'Hold or release a name',
          description:
            'A name belongs to one living worker or node at a time. It is lost when its holder dies or leaves: hold it again before each use.',
          body: [LocksSchema, LOCKS_EXAMPLE],
          responses: { 200: ['Whether the worker has it now', LocksResult, LOCKS_ANSWER] },
          problems: ['foreign-node'],
        }),
      },
    )
}
