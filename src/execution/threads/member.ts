import { Worker } from 'node:worker_threads'
import type { Clock } from '../../runtime/clock.ts'
import { formatDuration } from '../../runtime/duration.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Answers, Asker, Question, Reply } from '../../task/attempt/question.ts'
import { timedOut } from '../../task/attempt/runner.ts'
import {
  CELL,
  CELL_BYTES,
  type FromThread,
  isUpTo,
  nextOrdinal,
  type ThreadData,
  type ThreadSettings,
  type ToThread,
} from '../../task/attempt/thread-messages.ts'
import type { Execution, Report } from '../../task/executor.ts'
import type { Outcome } from '../../task/outcome.ts'

/** The event loop of a thread with tasks that has not turned for so long stands still. */
const STUCK_MS = 500

/** A thread that has not loaded its file after so long is ended. */
const UP_WITHIN_MS = 15_000

/** Bun's own option: a thread's heap is collected earlier. Elsewhere it means nothing. */
const SMALL_HEAP = { smol: true }

const nothing = (): ToThread => ({ runs: [], cancels: [], replies: [] })

export interface MemberSettings {
  threadUrl: URL
  settings: ThreadSettings
  clock: Clock
  graceMs: number
  log: Logger
  onReport(reports: Report[]): void
  /** Answers what targets ask; a rejection is told to the target. */
  answer(asker: Asker, question: Question): Promise<Answers[Question['kind']]>
  /** The thread's file was loaded. */
  onUp(): void
  /** The thread has ended and its tasks are settled. `error` is null when the pool ended it on purpose. */
  onGone(member: Member, end: { wasUp: boolean; error: string | null }): void
}

function replyTo(answered: Promise<Answers[Question['kind']]>): Promise<Reply> {
  return answered.then(
    (answer): Reply => ({ answer }),
    (error: unknown): Reply => ({ error: messageOf(error) }),
  )
}

/** One thread of the pool and the tasks in it. */
export interface Member {
  send(execution: Execution, settle: (outcome: Outcome) => void): void
  cancel(id: string): void
  running(): number
  /** False once it is being ended. */
  isOpen(): boolean
  /** The event loop stands still. */
  isStuck(): boolean
  /** Was given a handler's task, so it holds that file's code. */
  hasHandlerCode(): boolean
  /**
   * Takes note of what was started and whether the loop turns. Ends the thread when a task has outlived its grace, or when
   * the loop stands still for so long without a started task, because of what an earlier one left behind, or is never up.
   * `sleptMs`: time in which nobody could watch; it counts against no task.
   */
  watch(sleptMs: number): void
  /** Ends the thread; its tasks settle as `lost` with `why`. Returns when it is gone. */
  end(why: string): Promise<void>
}

interface Held {
  execution: Execution
  settle(outcome: Outcome): void
  /** By the pool's clock; infinite until the target is known to have started. */
  deadline: number
  cancelled: boolean
}

/** Spawns a thread. It is told of tasks and tells of ends in batches, one message per turn of the event loop. */
export function spawnMember(deps: MemberSettings): Member {
  const { clock, graceMs } = deps
  const buffer = new SharedArrayBuffer(CELL_BYTES)
  const cells = new Int32Array(buffer)
  const held = new Map<number, Held>()
  const workerData: ThreadData = { settings: deps.settings, cells: buffer }
  const worker = new Worker(deps.threadUrl, { workerData, ...SMALL_HEAP })
  const gone = Promise.withResolvers<void>()

  let batch = nothing()
  let flushing = false
  let ordinal = 0
  let wasUp = false
  let isGone = false
  let handlerCode = false
  /** Why the pool ends it; null while it does not. */
  let ending: string | null = null
  let crash: string | null = null
  let guilty = new Set<Held>()
  let turns = 0
  let turnedAt = clock.now()

  const wasStarted = (key: number) => isUpTo(key, Atomics.load(cells, CELL.started))
  const standsStill = () => wasUp && held.size > 0 && clock.now() - turnedAt > STUCK_MS

  function flush(): void {
    flushing = false
    if (isGone || ending !== null) return
    const message = JSON.stringify(batch)
    batch = nothing()
    worker.postMessage(message)
  }

  function flushSoon(): void {
    if (flushing) return
    flushing = true
    setImmediate(flush)
  }

  /** For the run of `key`; 0 is the thread itself. */
  async function answer(key: number, number: number, question: Question): Promise<void> {
    const run = held.get(key)?.execution
    const reply =
      key !== 0 && !run
        ? { error: 'the attempt that asked has ended' }
        : await replyTo(deps.answer(run ? { id: run.id, attempt: run.attempt } : null, question))
    if (isGone) return
    batch.replies.push([number, reply])
    flushSoon()
  }

  worker.on('message', (text: string) => {
    if (isGone) return
    const { reports, ends, questions } = JSON.parse(text) as FromThread
    if (!wasUp) {
      wasUp = true
      turnedAt = clock.now()
      deps.onUp()
    }
    if (reports.length > 0) deps.onReport(reports)
    for (const [key, outcome] of ends) {
      const task = held.get(key)
      held.delete(key)
      task?.settle(outcome)
    }
    for (const [key, number, question] of questions) void answer(key, number, question)
  })
  worker.on('error', (error: unknown) => {
    crash = `its thread crashed: ${messageOf(error)}`
  })
  worker.on('messageerror', (error: unknown) => {
    crash = `a message of its thread could not be read: ${messageOf(error)}`
    void end(crash)
  })
  worker.on('exit', (code) => {
    leave(ending ?? crash ?? `its thread exited with code ${code} (was process.exit called?)`)
  })

  function leave(why: string): void {
    if (isGone) return
    isGone = true
    for (const [key, task] of held) task.settle(endOf(key, task, why))
    held.clear()
    deps.onGone(member, { wasUp, error: ending === null ? why : null })
    gone.resolve()
  }

  function endOf(key: number, task: Held, why: string): Outcome {
    if (!guilty.has(task)) return { kind: 'lost', error: why, started: wasStarted(key) }
    const error = `${timedOut(task.execution)}; its thread was ended because it did not stop within ${formatDuration(graceMs)} more`
    return task.cancelled ? { kind: 'cancelled', error } : { kind: 'failed', retryable: true, error }
  }

  function end(why: string): Promise<void> {
    if (ending === null && !isGone) {
      ending = why
      worker.terminate().catch((error: unknown) => leave(`${why}; ending it failed: ${messageOf(error)}`))
      // A thread inside a blocking system call ends only after it: its tasks must not hang with it.
      const stop = clock.after(graceMs, () => {
        deps.log.error({ event: 'thread-stuck' }, `A worker thread does not end, going on without it: ${why}`)
        leave(`${why}; it did not end within ${formatDuration(graceMs)}`)
      })
      void gone.promise.then(stop)
    }
    return gone.promise
  }

  /**
   * Who ran past its timeout. While the loop turns: every task past its deadline. When it stands still, others could not
   * end even if they wanted to: if the thread says whose code holds it, only that task is judged by the present, the
   * others by the time when the loop last turned. If it cannot say (the loop is behind an await), all are judged by the present.
   */
  function findGuilty(): Set<Held> {
    const now = clock.now()
    const holder = standsStill() ? held.get(Atomics.load(cells, CELL.holder)) : undefined
    const past = new Set<Held>()
    for (const task of held.values()) {
      if (task.deadline <= (holder && holder !== task ? turnedAt : now)) past.add(task)
    }
    return past
  }

  const member: Member = {
    send(execution, settle) {
      if (held.size === 0) turnedAt = clock.now()
      ordinal = nextOrdinal(ordinal)
      held.set(ordinal, { execution, settle, deadline: Number.POSITIVE_INFINITY, cancelled: false })
      handlerCode ||= execution.target.type === 'handler'
      batch.runs.push([ordinal, execution])
      flushSoon()
    },
    cancel(id) {
      for (const [key, task] of held) {
        if (task.execution.id !== id || task.cancelled) continue
        task.cancelled = true
        batch.cancels.push(key)
        flushSoon()
      }
    },
    running: () => held.size,
    isOpen: () => ending === null && !isGone,
    isStuck: standsStill,
    hasHandlerCode: () => handlerCode,
    watch(sleptMs) {
      const now = clock.now()
      const turnsNow = Atomics.load(cells, CELL.turns)
      turnedAt = turnsNow === turns ? turnedAt + sleptMs : now
      turns = turnsNow
      let overdue: Held | undefined
      let isIdle = true
      for (const [key, task] of held) {
        if (task.deadline !== Number.POSITIVE_INFINITY) task.deadline += sleptMs
        else if (wasStarted(key)) task.deadline = now + task.execution.timeoutMs
        isIdle &&= task.deadline === Number.POSITIVE_INFINITY
        if (task.deadline + graceMs <= now) overdue ??= task
      }
      if (ending !== null) return
      if (overdue) {
        guilty = findGuilty()
        const { id, queue } = overdue.execution
        void end(`its thread was ended because task ${id} of queue ${queue} ran past its timeout`)
      } else if (held.size > 0 && isIdle && now - turnedAt > Math.max(graceMs, wasUp ? STUCK_MS : UP_WITHIN_MS)) {
        void end(wasUp ? 'its thread stood still before the task was started' : 'its thread did not load in time')
      }
    },
    end,
  }
  return member
}
