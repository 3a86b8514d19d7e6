import { createBatcher } from '../runtime/batcher.ts'
import { type Clock, realClock } from '../runtime/clock.ts'
import { messageOf, Problem } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { type Database, databaseProblem } from '../store/database/database.ts'
import { type InsertOptions, insertTasks } from '../store/tasks/insert/insert.ts'
import { addWoken, type Woken } from '../store/tasks/insert/insert-addressed.ts'
import type { Created, Inserted } from '../store/tasks/insert/insert-rows.ts'
import { createdRow, type TaskRow } from '../store/tasks/read/read.ts'
import type { BrokerKind } from '../task/ledger.ts'
import type { NewTask } from '../task/task.ts'
import { addressingFor } from './addressing.ts'
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
  /** The kind of broker that the nodes use: whether what is addressed to an exchange is published there. */
  broker?: BrokerKind
  /**
   * Told after each commit: for each queue that got tasks, and each exchange's line (`lineOf`) that has something to be
   * published, in how many milliseconds the earliest is due.
   */
  onSubmitted(woken: Woken): void
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
  broker = 'in-process',
  onSubmitted,
  onStored,
  clock = realClock,
}: SubmitterDeps): Submitter {
  let toldAt = Number.NEGATIVE_INFINITY
  const addressing = addressingFor(broker)

  async function insert(tasks: NewTask[], options?: InsertOptions): Promise<Inserted[]> {
    try {
      const inserted = await insertTasks(pool, nodeId(), tasks, { ...options, addressing })
      onStored?.(inserted.flatMap((one) => (one.kind === 'created' ? idsOf(one) : [])))
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
  // Children wait for their parents' locks, and what is addressed to an exchange is routed first: apart from the others,
  // only they do.
  const parentless = batcher()
  const children = batcher()
  const addressed = batcher()
  const batcherOf = ({ parentId, exchange }: NewTask) =>
    parentId !== null ? children : typeof exchange === 'string' ? addressed : parentless

  async function submit(task: NewTask): Promise<Submitted> {
    for (;;) {
      const answer = await batcherOf(task).add(task).catch(rethrow)
      if (answer !== 'again') return answer
    }
  }

  function wake(tasks: NewTask[], inserted: Inserted[]): void {
    const woken: Woken = new Map()
    for (const [index, task] of tasks.entries()) {
      const answer = inserted[index]
      if (answer?.kind === 'created') addWoken(woken, task, answer)
    }
    if (woken.size > 0) onSubmitted(woken)
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
    idle: async () => void (await Promise.all([parentless.idle(), children.idle(), addressed.idle()])),
  }
}

type Stored = Exclude<Inserted, { kind: 'refused' | 'again' }>

function submitted(task: NewTask, answer: Stored): Submitted {
  if (answer.kind === 'existing') return { created: false, id: answer.id }
  return { created: true, id: task.id, row: createdRow(task, answer) }
}

/** The task's, and its children's, when it was fanned out. */
function idsOf({ id, placed }: Created): string[] {
  return placed ? [id, ...placed.children.map((child) => child.id)] : [id]
}

function refusal({ code, field, detail }: Extract<Inserted, { kind: 'refused' }>): Problem {
  return new Problem(code, detail, [{ path: `/${field}`, message: detail }])
}

function rethrow(error: unknown): never {
  throw databaseProblem(error) ?? error
}
