import { randomUUID } from 'node:crypto'
import { type Clock, pause } from '../../runtime/clock.ts'

export interface WorkerNotice {
  /** Whether there is news. */
  notice: boolean
  /** To be sent with the next question, so that nothing between the two is missed. */
  position: string
}

/** Lets workers without a database hear at once that a beat would tell them something. A hint: beats find out by themselves. */
export interface WorkerNotices {
  /** Tells everybody who waits. */
  tell(): void
  /** As soon as there is news after `position`, else after `withinMs`. A position of another node counts as the present one. */
  next(position: string | undefined, withinMs: number): Promise<WorkerNotice>
  /** Ends every wait: the node stops. */
  close(): void
}

export function createWorkerNotices(clock: Clock): WorkerNotices {
  const here = randomUUID()
  let told = 0
  let waiting = new AbortController()
  let closed = false

  /** How many notices the asker has heard of. */
  function heard(position: string | undefined): number {
    const [place, count] = position?.split('/') ?? []
    return place === here ? Number(count) : told
  }

  return {
    tell() {
      told++
      waiting.abort()
      waiting = new AbortController()
    },
    async next(position, withinMs) {
      const before = heard(position)
      if (before === told && !closed) await pause(clock, withinMs, waiting.signal)
      return { notice: before !== told, position: `${here}/${told}` }
    },
    close() {
      closed = true
      waiting.abort()
    },
  }
}
