import type { Clock } from '../../runtime/clock.ts'
import { formatDuration } from '../../runtime/duration.ts'
import type { Logger } from '../../runtime/log.ts'
import type { ThreadSettings } from '../../task/attempt/thread-messages.ts'
import type { Executor, Report } from '../../task/executor.ts'
import type { Answerer } from '../answers.ts'
import { createLanes, type Waiting } from './lanes.ts'
import { type Member, spawnMember } from './member.ts'
import { watchFolder } from './reload.ts'

/** How often deadlines and event loops are looked at while tasks run. */
const WATCH_MS = 250
/** A look that comes so late was kept from coming. */
const SLEPT_MS = 1_000
/** Waits between spawns while threads end before they are up: the first, and the longest. */
const BACKOFF_MS = { first: 100, longest: 10_000 }
/** Extra threads for tasks that run alone. */
const ALONE_THREADS = 2
/** Threads that finish old code beside the present ones; further changes wait for them. */
const RETIRING_PER_THREAD = 4

export interface ThreadPoolSettings {
  /** How many threads at most, and as many again for runs with an affinity; besides those for tasks that run alone and those that finish old code. */
  threads: number
  /** The file of the thread; made beside it, or a compiled binary cannot find it. */
  threadUrl: URL
  workerData: ThreadSettings
  clock: Clock
  log: Logger
  /** How long a task may go on after its abort before its thread is ended; by default 5000. */
  graceMs?: number
  /** Progress and log lines; those of a task come before its outcome. */
  onReport(reports: Report[]): void
  /** Answers what targets ask, and is told which threads have ended. */
  answers: Pick<Answerer, 'answer' | 'gone'>
}

export interface ThreadPoolStats {
  /** Threads that take tasks. */
  threads: number
  /** Threads that finish what they have, because the handlers' code changed. */
  retiring: number
  alone: number
  /** Threads for runs with an affinity. */
  lanes: number
  /** Threads whose event loop stands still. */
  stuck: number
  running: number
  /** Tasks that wait for a thread. */
  waiting: number
  /** Since the start. */
  spawned: number
  crashed: number
}

/**
 * Runs attempts in worker threads, many in each. Threads are made when there is work for them, up to `threads`.
 *
 * A task that outlives its timeout and the grace, or that keeps its thread's event loop from turning for so long, ends
 * with its thread: tasks past their own deadline fail as timed out (when the thread can say whose code holds the loop,
 * only that one), the others are lost, `started` telling whether their target had begun. A crash loses all tasks of its thread.
 */
export function createThreadPool(settings: ThreadPoolSettings): Executor & { stats(): ThreadPoolStats } {
  const { clock, log, graceMs = 5_000, answers } = settings
  const { handlersDir } = settings.workerData
  const present = new Set<Member>()
  const retiring = new Set<Member>()
  const alone = new Set<Member>()
  let waiting: Waiting[] = []
  let waitingAlone: Waiting[] = []
  let spawned = 0
  let crashed = 0
  let failedStarts = 0
  let spawnFrom = 0
  let closed = false
  let reloadWaits = false
  let stopWatching: (() => void) | undefined
  let stopBackoff: (() => void) | undefined
  const stopReloading =
    handlersDir === null ? () => {} : watchFolder({ folder: handlersDir, clock, log, onChange: replaceThreads })

  function report(reports: Report[]): void {
    try {
      settings.onReport(reports)
    } catch (error) {
      log.error({ event: 'reports-failed', err: error }, 'Reports of running tasks could not be taken')
    }
  }

  function spawn(into?: Set<Member>): Member {
    const number = ++spawned
    const member = spawnMember({
      threadUrl: settings.threadUrl,
      settings: settings.workerData,
      clock,
      log,
      graceMs,
      onReport: report,
      answer: (asker, question) => answers.answer(number, asker, question),
      onUp() {
        failedStarts = 0
      },
      onGone(gone, { wasUp, error }) {
        for (const set of [present, retiring, alone]) set.delete(gone)
        lanes.gone(gone)
        // While the pool is open: then the node leaves, and all its names are free.
        if (!closed) answers.gone(number)
        if (error !== null) noteCrash(wasUp, error)
        if (reloadWaits) replaceThreads()
        pump()
      },
    })
    into?.add(member)
    return member
  }

  function noteCrash(wasUp: boolean, error: string): void {
    crashed++
    if (wasUp) {
      log.warn({ event: 'thread-lost' }, `A worker thread ended unasked and is replaced: ${error}`)
      return
    }
    const backoffMs = Math.min(BACKOFF_MS.first * 2 ** failedStarts++, BACKOFF_MS.longest)
    spawnFrom = clock.now() + backoffMs
    log.error(
      { event: 'thread-failed' },
      `A worker thread did not start, next try in ${formatDuration(backoffMs)}: ${error}`,
    )
  }

  function canSpawn(): boolean {
    const wait = spawnFrom - clock.now()
    if (wait <= 0) return true
    stopBackoff ??= clock.after(wait, () => {
      stopBackoff = undefined
      pump()
    })
    return false
  }

  /** The thread with the least to do; one that stands still comes last. A new one while all are busy and there may be more. */
  function choose(): Member | undefined {
    let best: Member | undefined
    let bestLoad = Number.POSITIVE_INFINITY
    for (const member of present) {
      const load = member.running() + (member.isStuck() ? 1_000_000 : 0)
      if (load >= bestLoad || !member.isOpen()) continue
      best = member
      bestLoad = load
    }
    if (bestLoad > 0 && present.size < settings.threads && canSpawn()) return spawn(present)
    return best
  }

  function give(member: Member, { execution, settle }: Waiting): void {
    member.send(execution, (outcome) => {
      settle(outcome)
      if (alone.has(member) || (retiring.has(member) && member.running() === 0))
        void member.end('its thread had done its work')
    })
    if (!stopWatching) watchLater()
  }

  function watchLater(): void {
    const due = clock.now() + WATCH_MS
    stopWatching = clock.after(WATCH_MS, () => watch(clock.now() - due))
  }

  function watch(lateMs: number): void {
    stopWatching = undefined
    // After SIGSTOP, or in a blocked event loop, ends may wait unread: what looks overdue then need not be.
    const sleptMs = lateMs > SLEPT_MS ? lateMs : 0
    let running = 0
    for (const member of members()) {
      member.watch(sleptMs)
      running += member.running()
    }
    if (running > 0 && !closed) watchLater()
  }

  /** Hands waiting tasks to threads, as far as there are any. */
  function pump(): void {
    if (closed) return
    while (waiting.length > 0) {
      const member = choose()
      if (!member) break
      give(member, waiting.shift() as Waiting)
    }
    while (waitingAlone.length > 0 && alone.size < ALONE_THREADS && canSpawn()) {
      give(spawn(alone), waitingAlone.shift() as Waiting)
    }
    lanes.pump()
  }

  /** Handlers' code has changed: threads that hold some take no more tasks and end with their last one. */
  function replaceThreads(): void {
    reloadWaits = false
    for (const member of present) {
      if (!member.hasHandlerCode()) continue
      if (retiring.size >= settings.threads * RETIRING_PER_THREAD) {
        reloadWaits = true
        return
      }
      present.delete(member)
      retiring.add(member)
      if (member.running() === 0) void member.end('the handlers have changed')
    }
  }

  const members = () => [...present, ...retiring, ...alone, ...lanes.members()]
  const lanes = createLanes({
    threads: settings.threads,
    spawn: () => (!closed && canSpawn() ? spawn() : undefined),
    give,
    runAlone,
  })

  function runAlone(task: Waiting): void {
    waitingAlone.push(task)
    pump()
  }

  /** Takes out what no thread has yet. */
  function takeWaiting(which: (task: Waiting) => boolean): Waiting[] {
    const taken = [...waiting, ...waitingAlone].filter(which)
    waiting = waiting.filter((task) => !which(task))
    waitingAlone = waitingAlone.filter((task) => !which(task))
    return [...taken, ...lanes.takeWaiting(which)]
  }

  return {
    run(execution) {
      if (closed) return Promise.resolve({ kind: 'lost', error: 'the thread pool is closed', started: false })
      return new Promise((resolve) => {
        const task: Waiting = { execution, settle: resolve }
        if (execution.affinity) return lanes.run(execution.affinity, task)
        if (execution.alone) return runAlone(task)
        const member = waiting.length > 0 ? undefined : choose()
        if (member) give(member, task)
        else waiting.push(task)
      })
    },

    cancel(id) {
      for (const task of takeWaiting(({ execution }) => execution.id === id)) task.settle({ kind: 'cancelled' })
      for (const member of members()) member.cancel(id)
    },

    async close() {
      closed = true
      stopReloading()
      stopWatching?.()
      stopBackoff?.()
      const why = 'the thread pool was closed'
      for (const task of takeWaiting(() => true)) task.settle({ kind: 'lost', error: why, started: false })
      await Promise.all(members().map((member) => member.end(why)))
    },

    stats: () => ({
      threads: present.size,
      retiring: retiring.size,
      alone: alone.size,
      lanes: [...lanes.members()].length,
      stuck: members().filter((member) => member.isStuck()).length,
      running: members().reduce((sum, member) => sum + member.running(), 0),
      waiting: waiting.length + waitingAlone.length + lanes.waiting(),
      spawned,
      crashed,
    }),
  }
}
