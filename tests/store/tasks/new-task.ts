import { v7 } from 'uuid'
import type { NewTask } from '../../../src/task/task.ts'

/** A task on the queue `emails`, ready to be stored. */
export function newTask(fields: Partial<NewTask> = {}): NewTask {
  return {
    id: v7(),
    queue: 'emails',
    type: null,
    payload: '{"n":1}',
    target: null,
    priority: 0,
    dueAt: null,
    delayMs: null,
    maxAttempts: null,
    timeoutMs: null,
    idempotencyKey: null,
    fingerprint: fields.idempotencyKey ? 'same' : null,
    parentId: null,
    origin: 'api',
    ...fields,
  }
}
