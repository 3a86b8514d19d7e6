import { type Static, Type } from '@sinclair/typebox'
import type { ChildRow } from '../../../store/tasks/family/children.ts'
import type { ListedRow } from '../../../store/tasks/read/list.ts'
import { memberSpans } from '../../../task/json/text.ts'
import { isFinal, type Status } from '../../../task/status.ts'
import { SINKS } from './topology.ts'

export type JobStatus = 'PENDING' | 'PROCESSING' | 'COMPLETED' | 'FAILED'

/** How far one task is, in this system's words; one that was given back has begun all the same. */
function statusOf({ status, attempt }: { status: Status; attempt: number }): JobStatus {
  switch (status) {
    case 'pending':
    case 'queued':
      return attempt === 0 ? 'PENDING' : 'PROCESSING'
    case 'running':
    case 'retrying':
      return 'PROCESSING'
    case 'succeeded':
      return 'COMPLETED'
    case 'dead':
    case 'cancelled':
      return 'FAILED'
    default:
      return status satisfies never
  }
}

/** A job that is not over has begun when one of its sinks has. */
function jobStatus(job: ListedRow, children: readonly ChildRow[]): JobStatus {
  if (isFinal(job.status) || children.length === 0) return statusOf(job)
  return children.every((child) => statusOf(child) === 'PENDING') ? 'PENDING' : 'PROCESSING'
}

/** The job as JSON text; its payload goes out as the text that came in. */
export function jobJson(job: ListedRow, children: readonly ChildRow[]): string {
  // Bound to one queue only, the job is that queue's task itself.
  const sinks = children.length > 0 ? children : [{ ...job, startedAt: job.started_at, finishedAt: job.finished_at }]
  const sinkOf = (queue: string) => {
    const found = sinks.find((sink) => sink.queue === queue)
    return found ? statusOf(found) : null
  }
  const fields: Omit<Static<typeof JobSchema>, 'payload'> = {
    id: job.id,
    type: job.type ?? '',
    status: jobStatus(job, children),
    retryCount: sinks.reduce((sum, { failures }) => sum + failures, 0),
    createdAt: job.created_at,
    updatedAt: lastOf(job.created_at, job.started_at, job.finished_at, ...sinks.flatMap(timesOf)),
    sinks: { db: sinkOf(SINKS.db), csv: sinkOf(SINKS.csv) },
  }
  return `${JSON.stringify(fields).slice(0, -1)},"payload":${payloadOf(job.payload)}}`
}

function timesOf({ startedAt, finishedAt }: { startedAt: string | null; finishedAt: string | null }) {
  return [startedAt, finishedAt]
}

/** Times of one form, so the last is the greatest text. */
function lastOf(first: string, ...others: (string | null)[]): string {
  return others.reduce<string>((last, time) => (time !== null && time > last ? time : last), first)
}

/** The message holds id, type and payload. */
function payloadOf(message: string): string {
  const found = memberSpans(message)
  const span = found?.ok ? found.members.get('payload') : undefined
  return span ? message.slice(...span) : 'null'
}

const Shown = Type.Union(
  (['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED'] as const).map((status) => Type.Literal(status)),
)
const Sink = Type.Union([Shown, Type.Null()], { description: 'null: it is not bound' })

export const JobSchema = Type.Object({
  id: Type.String({ format: 'uuid' }),
  type: Type.String(),
  payload: Type.Any({ description: 'The JSON that was submitted, as the very text' }),
  status: { ...Shown, description: 'COMPLETED when both sinks have it' },
  retryCount: Type.Integer({ description: 'Attempts that failed, of both sinks together' }),
  createdAt: Type.String({ format: 'date-time' }),
  updatedAt: Type.String({ format: 'date-time' }),
  sinks: Type.Object({ db: Sink, csv: Sink }, { description: 'How far each sink is' }),
})

export const JOB_EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000001',
  type: 'report',
  payload: { month: '2026-01' },
  status: 'PROCESSING',
  retryCount: 0,
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:01.000Z',
  sinks: { db: 'COMPLETED', csv: 'PENDING' },
}
