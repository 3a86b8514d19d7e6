import { pause } from '../runtime/clock.ts'
import { parseCron } from '../runtime/cron.ts'
import { messageOf } from '../runtime/errors.ts'
import { createPeriodic, type Periodic, pauseUntilDue } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import type { NextPoll } from '../store/sources/change.ts'
import { type DueSource, dueAgain, nextSourceDue, takeDueSources } from '../store/sources/due.ts'
import { completeSource } from '../task/source/defaults.ts'
import type { SourceSettings } from '../task/source/source.ts'
import { type VisitDeps, visitSource } from './visit/visit.ts'

export interface PollerDeps extends VisitDeps {
  /** False while this node may start nothing new (PROTOCOL 5). */
  mayStart(): boolean
}

export interface Poller extends Service {
  readonly periodic: readonly Periodic[]
  /** Sources or files have changed: looks at once. */
  wake(): void
  /** Ids of the sources that are being visited by this node. */
  visiting(): string[]
}

/** Behind every wake-up stands this look. */
const POLL_MS = 5_000
const RETRY_MS = 500
/** Sources that one node visits at once: most of the time it waits for their servers. */
const VISITS = 16
/** A source whose visit the ledger has cut short, or that is visited already, is due again so soon. */
const AGAIN_MS = 2_000

/**
 * Visits sources when they are due by Postgres's clock: the local one only wakes it. Any number of pollers may run, on as many
 * nodes; each time of a source is taken by one of them, and no two visit one source at once. A source that hangs or fails
 * holds up no other.
 */
export function createPoller(deps: PollerDeps): Poller {
  const { pool, clock, log } = deps
  const visits = new Map<string, Promise<void>>()
  let stopping = new AbortController()

  function begin(due: DueSource): void {
    const { id, name } = due.source
    const visit = visitSource(due, deps, stopping.signal)
      .catch(async (error: unknown) => {
        if (!stopping.signal.aborted)
          log.warn({ event: 'poll-failed', source: id, name, error: messageOf(error) }, `Cannot poll "${name}"`)
        if (due.poll) await makeDueAgain(id)
      })
      .finally(() => {
        visits.delete(id)
        // It may be due again at once, or another has waited for its place.
        periodic.wake()
      })
    visits.set(id, visit)
  }

  /** Tries until the ledger has it; once when the poller stops. */
  async function makeDueAgain(id: string): Promise<void> {
    for (;;) {
      try {
        return await dueAgain(pool, id, AGAIN_MS)
      } catch {
        if (stopping.signal.aborted) return
        await pause(clock, RETRY_MS, stopping.signal)
      }
    }
  }

  const periodic = createPeriodic({
    name: 'sources',
    description: 'Visits the sources that are due, and sleeps until the next is',
    everyMs: POLL_MS,
    retryMs: RETRY_MS,
    clock,
    async run() {
      if (visits.size >= VISITS || !deps.mayStart()) return undefined
      const delayMs = await nextSourceDue(pool)
      if (delayMs !== 0) return pauseUntilDue(delayMs)
      for (const due of await takeDueSources(pool, VISITS - visits.size, nextPoll)) {
        // Its visit goes on still; what it was due for follows.
        if (!visits.has(due.source.id)) begin(due)
        else if (due.poll) await dueAgain(pool, due.source.id, AGAIN_MS)
      }
      return pauseUntilDue(await nextSourceDue(pool))
    },
    onError: (error) => log.warn({ event: 'poller-failed', error: messageOf(error) }, 'Cannot look at the sources'),
  })

  return {
    periodic: [periodic],
    wake: () => periodic.wake(),
    visiting: () => [...visits.keys()],
    async start() {
      stopping = new AbortController()
      periodic.start()
    },
    async stop() {
      await periodic.stop()
      stopping.abort()
      await Promise.allSettled(visits.values())
    },
  }
}

/** When a source is looked at after `now`: milliseconds since 1970. */
export function nextPoll({ settings }: { settings: SourceSettings }, now: number): NextPoll {
  const { cron, timezone } = completeSource(settings)
  if (cron === undefined) return 'never'
  const parsed = parseCron(cron, timezone)
  return (parsed.ok ? parsed.cron.next(now) : undefined) ?? 'never'
}
