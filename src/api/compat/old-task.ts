import { v7 as uuidv7 } from 'uuid'
import { invalid } from '../../runtime/errors.ts'
import type { Tracing } from '../../runtime/telemetry/tracing.ts'
import type { Submitted, Submitter } from '../../submit/submitter.ts'
import { LIMITS } from '../../task/limits.ts'
import type { NewTask } from '../../task/task.ts'
import { tracedSubmission } from '../routes/tasks/trace.ts'

export interface OldSubmitDeps {
  submitter: Pick<Submitter, 'submit'>
  /** Where spans of submissions go; by default nowhere. */
  tracing?: Tracing
}

/** What an older client asks for as a task: due now, with all the rest as its queue says. `payload` is JSON text that was checked. */
export function oldTask(queue: string, payload: string, given: Partial<Pick<NewTask, 'id' | 'type'>> = {}): NewTask {
  if (Buffer.byteLength(payload) > LIMITS.payloadBytes)
    throw invalid('', `may hold at most ${LIMITS.payloadBytes} bytes`, 'too-large')
  return {
    id: uuidv7(),
    queue,
    type: null,
    payload,
    target: null,
    priority: 0,
    dueAt: null,
    delayMs: null,
    maxAttempts: null,
    timeoutMs: null,
    idempotencyKey: null,
    fingerprint: null,
    parentId: null,
    origin: 'compat',
    ...given,
  }
}

/** Stores the task; it is committed when this resolves. */
export function submitOld({ submitter, tracing }: OldSubmitDeps, request: Request, task: NewTask): Promise<Submitted> {
  return tracedSubmission(tracing, request, [task], () => submitter.submit(task))
}
