import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic, serviceOf } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import type { Orphan } from '../store/nodes.ts'
import type { Settled, Settlement } from '../task/ledger.ts'

export interface RescuerDeps {
  clock: Clock
  log: Logger
  /** Milliseconds for which this node's own beats have been without a gap. */
  steadyMs(): number
  markSilentNodes(silentMs: number): Promise<string[]>
  orphanedTasks(limit: number): Promise<Orphan[]>
  settle(node: string, settlements: Settlement[]): Promise<Settled[]>
  /** Takes tasks back from foreign owners that did not report; gives their queues. */
  takeFromSilentOwners(limit: number): Promise<string[]>
  /** Puts tasks back in line that nodes which are gone had not surely published; gives their queues. */
  returnLostPublishes(limit: number): Promise<string[]>
  /** Sends tasks again of which no foreign consumer reported since their publish; gives their queues. */
  takeUnreported(limit: number): Promise<string[]>
  wake(queue: string): void
}

/** A node is dead when its beat is this old, and only a rescuer that beat for as long itself may say so (PROTOCOL 5). */
const DEAD_AFTER_MS = 15_000
const EVERY_MS = 5_000
const BATCH = 500

/** Sends the work of dead nodes again. Any number of rescuers may run: the fence lets one win each task. */
export function createRescuer(deps: RescuerDeps): Service {
  const { clock, log } = deps

  async function rescue(signal: AbortSignal): Promise<void> {
    if (deps.steadyMs() < DEAD_AFTER_MS) return
    const dead = await deps.markSilentNodes(DEAD_AFTER_MS)
    for (const node of dead)
      log.error({ event: 'node-dead', node }, 'A node was silent for 15 s; its work is sent again')
    let found = BATCH
    while (found === BATCH && !signal.aborted) {
      const orphans = await deps.orphanedTasks(BATCH)
      found = orphans.length
      for (const [node, tasks] of Map.groupBy(orphans, (orphan) => orphan.node)) await send(node, tasks)
    }
    await all(signal, deps.returnLostPublishes, (queues) =>
      log.warn({ event: 'publishes-lost', queues }, 'Puts tasks back in line whose publisher is gone'),
    )
    await all(signal, deps.takeFromSilentOwners)
    await all(signal, deps.takeUnreported)
  }

  /** Batch after batch, until one takes nothing. */
  async function all(
    signal: AbortSignal,
    take: (limit: number) => Promise<string[]>,
    tell?: (queues: string[]) => void,
  ): Promise<void> {
    while (!signal.aborted) {
      const queues = await take(BATCH)
      if (queues.length === 0) return
      tell?.(queues)
      for (const queue of queues) deps.wake(queue)
    }
  }

  async function send(node: string, orphans: Orphan[]): Promise<void> {
    const settled = await deps.settle(
      node,
      orphans.map(({ node: _, started, ...attempt }) => ({
        ...attempt,
        outcome: { kind: 'lost', started, error: `node ${node} was lost` },
      })),
    )
    const saved = settled.filter((one) => !one.late).length
    log.warn({ event: 'tasks-rescued', node, tasks: saved }, 'Sends the tasks of a lost node again')
    for (const queue of new Set(orphans.map((orphan) => orphan.queue))) deps.wake(queue)
  }

  const periodic = createPeriodic({
    name: 'rescuer',
    description: 'Looks for dead nodes and silent foreign owners, and sends their work again',
    everyMs: EVERY_MS,
    clock,
    run: rescue,
    onError: (error) => log.warn({ event: 'rescue-failed', error: messageOf(error) }),
  })
  return serviceOf(periodic)
}
