import { createBatcher } from '../runtime/batcher.ts'
import { type Clock, realClock } from '../runtime/clock.ts'
import { messageOf, Problem } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { type Database, databaseProblem } from '../store/database.ts'
import { type InsertOptions, insertTasks } from '../store/tasks/insert.ts'
import type { Inserted } from '../store/tasks/insert-rows.ts'
import { createdRow, type TaskRow } from '../store/tasks/read.ts'
import type { NewTask } from '../task/task.ts'
import { type Refusal, refusedBatch } from './validate-batch.ts'

/** What became of a submission: a task of its own, or the first one with its idempotency key. */
export type Submitted = { created: true; id: string; row: TaskRow } | { created: false; id: string }

/** The one door through which tasks come in. Everything is committed when its promise resolves. */
export interface Submitter {
  /** Stores one task; many callers share a commit, and the fault of one is no other's. Rejects with a Problem. */
  submit(task: NewTask): Promise<Submitted>
  /** Stores all tasks in a commit of their own, or none: then the Problem's `errors` name them by their place. */
  submitBatch(tasks: NewTask[]): Promise<Submitted[]>
  /** Resolves when no single submission is in flight. */
  idle(): Promise<void>
}

export interface SubmitterDeps {
  pool: Database['pool']
  /** The node that counts what it accepts. */
  nodeId(): string
  log: Logger
  /** Told after each commit: for each queue that got tasks, in how many milliseconds the earliest is due. */
  onSubmitted(queues: Map<string, number>): void
  /** Told after each commit which tasks it stored. */
  onStored?(ids: string[]): void
  clock?: Clock
}

const MAX_BATCH = 500
/** Two, so that one batch gathers and travels while the other is flushed to disk. */
const LANES = 2
/** In UTF-16 code units of payload: one statement, and all that waits for one. */
const BATCH_WEIGHT = 8 * 1024 * 1024
const WAITING_WEIGHT = 128 * 1024 * 1024
/** How often the log says that tasks cannot be stored; each caller is told anyway. */
const TELL_EVERY_MS = 10_000

export function createSubmitter({
  pool,
  nodeId,
  log,
  onSubmitted,
  onStored,
  clock = realClock,
}: SubmitterDeps): Submitter {
  let toldAt = Number.NEGATIVE_INFINITY

  async function insert(tasks: NewTask[], options?: InsertOptions): Promise<Inserted[]> {
    try {
      const inserted = await insertTasks(pool, nodeId(), tasks, options)
      onStored?.(inserted.flatMap((one) => (one.kind === 'created' ? [one.id] : [])))
      return inserted
    } catch (error) {
      const problem = error instanceof Problem ? error : databaseProblem(error)
      if (problem && clock.now() - toldAt >= TELL_EVERY_MS) {
        toldAt = clock.now()
        log.error({ event: 'submits-refused', code: problem.code, error: messageOf(error) }, problem.detail)
      }
      throw error
    }
  }

  const batcher = () =>
    createBatcher<NewTask, Submitted | 'again'>({
      maxBatch: MAX_BATCH,
      lanes: LANES,
      weigh: (task) => task.payload.length,
      maxBatchWeight: BATCH_WEIGHT,
      maxWaitingWeight: WAITING_WEIGHT,
      run: async (tasks) => {
        const inserted = await insert(tasks)
        wake(tasks, inserted)
        return tasks.map((task, index) => {
          const answer = inserted[index] as Inserted
          if (answer.kind === 'again') return 'again'
          return answer.kind === 'refused' ? refusal(answer) : submitted(task, answer)
        })
      },
      splitOnError(error) {
        const own = !(error instanceof Problem) && databaseProblem(error) === undefined
        if (own)
          log.warn(
            { event: 'submit-batch-split', error: messageOf(error) },
            'A group commit failed; it is repeated in halves',
          )
        return own
      },
    })
  // Children wait for their parents' locks; apart from the others, only they do.
  const parentless = batcher()
  const children = batcher()

  async function submit(task: NewTask): Promise<Submitted> {
    for (;;) {
      const answer = await (task.parentId === null ? parentless : children).add(task).catch(rethrow)
      if (answer !== 'again') return answer
    }
  }

  function wake(tasks: NewTask[], inserted: Inserted[]): void {
    const queues = new Map<string, number>()
    for (const [index, { queue }] of tasks.entries()) {
      const answer = inserted[index]
      if (answer?.kind !== 'created') continue
      queues.set(queue, Math.min(queues.get(queue) ?? Number.POSITIVE_INFINITY, answer.delayMs))
    }
    if (queues.size > 0) onSubmitted(queues)
  }

  return {
    submit,
    async submitBatch(tasks) {
      const inserted = await insert(tasks, { allOrNothing: true }).catch(rethrow)
      const refusals = inserted.flatMap((answer, index): Refusal[] =>
        answer.kind === 'refused'
          ? [
              {
                index,
                code: answer.code,
                detail: answer.detail,
                errors: [{ path: `/${answer.field}`, message: answer.detail }],
              },
            ]
          : [],
      )
      if (refusals.length > 0) throw refusedBatch(refusals)
      wake(tasks, inserted)
      return tasks.map((task, index) => submitted(task, inserted[index] as Stored))
    },
    idle: async () => void (await Promise.all([parentless.idle(), children.idle()])),
  }
}

type Stored = Exclude<Inserted, { kind: 'refused' | 'again' }>

function submitted(task: NewTask, answer: Stored): Submitted {
  if (answer.kind === 'existing') return { created: false, id: answer.id }
  return { created: true, id: task.id, row: createdRow(task, answer) }
}

function refusal({ code, field, detail }: Extract<Inserted, { kind: 'refused' }>): Problem {
  return new Problem(code, detail, [{ path: `/${field}`, message: detail }])
}

function rethrow(error: unknown): never {
  throw databaseProblem(error) ?? error
}
