import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic, serviceOf } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import { type WindowFacts, windowOf } from './window.ts'

/** What the consumers of a queue do. */
export type Work = Omit<WindowFacts, 'given'>

export interface WindowsDeps {
  clock: Clock
  log: Logger
  /** What the other living nodes told of their consumers, by queue. */
  readElsewhere(): Promise<Map<string, Work>>
  /** What this node's consumers do just now. */
  here(queue: string): Work
  /** The queue's own setting. */
  given(queue: string): number | null
}

export interface Windows extends Service {
  of(queue: string): number
}

/** As often as nodes beat. */
const EVERY_MS = 5_000

/** Keeps the windows of queues fitting to what their consumers do: this node's as of now, the others' as of their beats. */
export function createWindows({ clock, log, readElsewhere, here, given }: WindowsDeps): Windows {
  let elsewhere = new Map<string, Work>()
  const periodic = createPeriodic({
    name: 'windows',
    description: 'Reads what the consumers of other nodes do, for how much the broker may hold',
    everyMs: EVERY_MS,
    clock,
    async run() {
      elsewhere = await readElsewhere()
    },
    onError: (error) => log.debug({ event: 'windows-failed', error: messageOf(error) }),
  })
  return {
    ...serviceOf(periodic),
    of(queue) {
      const [mine, theirs] = [here(queue), elsewhere.get(queue) ?? { slots: 0, rate: 0 }]
      return windowOf({ given: given(queue), slots: mine.slots + theirs.slots, rate: mine.rate + theirs.rate })
    },
  }
}
