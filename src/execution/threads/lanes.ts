import type { Execution } from '../../task/executor.ts'
import type { Outcome } from '../../task/outcome.ts'
import type { Member } from './member.ts'

/** A run that waits for a thread. */
export interface Waiting {
  execution: Execution
  settle(outcome: Outcome): void
}

export interface LanesDeps {
  /** How many threads at most. */
  threads: number
  /** Makes a thread for lanes; undefined: none can be made now, `pump` follows. */
  spawn(): Member | undefined
  give(member: Member, task: Waiting): void
  /** Runs it in a thread that it has to itself. */
  runAlone(task: Waiting): void
}

/** Runs with the same affinity, in one thread at a time. */
export interface Lanes {
  run(affinity: string, task: Waiting): void
  /** Hands over what waits, as far as that is possible. */
  pump(): void
  /** The thread has ended: its lanes take another. */
  gone(member: Member): void
  members(): Iterable<Member>
  /** Takes out the runs that wait in front of their thread. */
  takeWaiting(which: (task: Waiting) => boolean): Waiting[]
  waiting(): number
}

interface Lane {
  /** While it is being ended nothing is given to it, nor to another in its place. */
  member: Member | undefined
  running: number
  /** A run of this lane has a thread to itself: the others wait. */
  isAlone: boolean
  waiting: Waiting[]
}

/** Idle lanes that are remembered, so that they find the thread that has their connections and files open. */
const MAX_IDLE = 1_000

/**
 * Targets that gather many tasks into one write need them in one thread, and a file needs one writer. These threads run no
 * handlers: nobody else's code can hold them up, crash them, or make them be replaced while a file is open.
 */
export function createLanes({ threads, spawn, give, runAlone }: LanesDeps): Lanes {
  const lanes = new Map<string, Lane>()
  const members = new Set<Member>()

  /** The thread with the least to do; a new one while all are busy and there may be more. */
  function choose(): Member | undefined {
    const open = [...members].filter((member) => member.isOpen())
    const best = open.reduce<Member | undefined>(
      (least, member) => (least && least.running() <= member.running() ? least : member),
      undefined,
    )
    if ((best && best.running() === 0) || members.size >= threads) return best
    const made = spawn()
    if (made) members.add(made)
    return made ?? best
  }

  function pumpLane(lane: Lane): void {
    for (;;) {
      const [first] = lane.waiting
      if (!first || lane.isAlone) return
      if (first.execution.alone) {
        if (lane.running > 0) return
        lane.isAlone = true
        lane.waiting.shift()
        runAlone({ ...first, settle: (outcome) => ended(lane, first, outcome) })
        return
      }
      lane.member ??= choose()
      if (!lane.member?.isOpen()) return
      lane.running++
      lane.waiting.shift()
      give(lane.member, { ...first, settle: (outcome) => ended(lane, first, outcome) })
    }
  }

  function ended(lane: Lane, task: Waiting, outcome: Outcome): void {
    if (task.execution.alone) lane.isAlone = false
    else lane.running--
    task.settle(outcome)
    pumpLane(lane)
  }

  function forgetIdle(): void {
    for (const [affinity, lane] of lanes) {
      if (lanes.size <= MAX_IDLE) return
      if (lane.running === 0 && !lane.isAlone && lane.waiting.length === 0) lanes.delete(affinity)
    }
  }

  return {
    run(affinity, task) {
      let lane = lanes.get(affinity)
      if (!lane) {
        forgetIdle()
        lane = { member: undefined, running: 0, isAlone: false, waiting: [] }
        lanes.set(affinity, lane)
      }
      lane.waiting.push(task)
      pumpLane(lane)
    },
    pump() {
      for (const lane of lanes.values()) pumpLane(lane)
    },
    gone(member) {
      members.delete(member)
      for (const lane of lanes.values()) if (lane.member === member) lane.member = undefined
    },
    members: () => members,
    takeWaiting(which) {
      const taken: Waiting[] = []
      for (const lane of lanes.values()) {
        taken.push(...lane.waiting.filter(which))
        lane.waiting = lane.waiting.filter((task) => !which(task))
      }
      return taken
    },
    waiting: () => [...lanes.values()].reduce((sum, lane) => sum + lane.waiting.length, 0),
  }
}
