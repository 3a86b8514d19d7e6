import type { NodeState } from './ledger.ts'
import type { Status } from './status.ts'

/** Why a live task is not running. The first that holds, in this order, is told. */
export const CAUSES = [
  'due-later',
  'queue-paused',
  'no-consumer',
  'consumer-paused',
  'window-full',
  'retry-backoff',
  'children',
  'worker-busy',
  'node-lost',
] as const
export type Cause = (typeof CAUSES)[number]

export interface WaitingFor {
  cause: Cause
  /** A sentence for people. */
  detail: string
  /** RFC 3339; when the wait ends by itself. */
  until?: string
}

/** What of a task decides. */
export interface WaitingTask {
  queue: string
  status: Status
  /** RFC 3339. */
  dueAt: string
  failures: number
  maxAttempts: number
  /** The node that has it, when it is running. */
  node: string | null
  childrenTotal: number
  childrenFinal: number
  /** Its own work is done: it ends with its last child. */
  sealed: boolean
}

/** What stands around tasks, as it was read last. */
export interface Situation {
  /** RFC 3339, by Postgres's clock. */
  now: string
  queues: ReadonlyMap<string, { paused: boolean; consumers: readonly { paused: boolean; concurrency: number }[] }>
  /** The living nodes by id, as they told of themselves in their last beat. */
  nodes: ReadonlyMap<string, NodeState>
}

/** What the task waits for; null for one that is final or runs as it should. Pure. */
export function waitingFor(task: WaitingTask, situation: Situation): WaitingFor | null {
  switch (task.status) {
    case 'succeeded':
    case 'dead':
    case 'cancelled':
      return null
    case 'running':
      return runningFor(task, situation)
    case 'pending':
    case 'queued':
    case 'retrying':
      return waitingInLine(task, situation)
    default:
      return task.status satisfies never
  }
}

function runningFor(task: WaitingTask, { nodes }: Situation): WaitingFor | null {
  const live = task.childrenTotal - task.childrenFinal
  if (task.sealed && live > 0) {
    return {
      cause: 'children',
      detail: `Its own work is done; ${live} of its ${task.childrenTotal} children are not final yet`,
    }
  }
  // Without a node it belongs to a foreign consumer, who is judged by its deadline.
  if (task.node === null || nodes.has(task.node)) return null
  return {
    cause: 'node-lost',
    detail: `Node ${task.node} is silent: the task goes to another one when it counts as dead`,
  }
}

function waitingInLine(task: WaitingTask, { now, queues, nodes }: Situation): WaitingFor {
  const { queue: name, dueAt, status } = task
  const queue = queues.get(name)
  const dueLater = Date.parse(dueAt) > Date.parse(now)
  if (dueLater && status !== 'retrying') {
    return { cause: 'due-later', detail: `It is due at ${dueAt}`, until: dueAt }
  }
  if (queue?.paused) return { cause: 'queue-paused', detail: `Queue "${name}" is paused: resume it` }
  const consumers = queue?.consumers ?? []
  if (consumers.length === 0)
    return { cause: 'no-consumer', detail: `No consumer takes from queue "${name}": create one` }
  const active = consumers.filter((consumer) => !consumer.paused)
  if (active.length === 0) {
    const all = consumers.length === 1 ? 'The only consumer' : `All ${consumers.length} consumers`
    return {
      cause: 'consumer-paused',
      detail: `${all} of queue "${name}" ${consumers.length === 1 ? 'is' : 'are'} paused: resume one`,
    }
  }
  const hands = [...nodes.values()].flatMap((node) => node.consumers.filter((consumer) => consumer.queue === name))
  if (hands.length === 0) {
    return {
      cause: 'no-consumer',
      detail: `No living node runs the consumer of queue "${name}": start one with the role "worker"`,
    }
  }
  const slots = hands.reduce((sum, { concurrency }) => sum + concurrency, 0)
  const running = hands.reduce((sum, hand) => sum + hand.running, 0)
  const buffered = hands.reduce((sum, hand) => sum + hand.buffered, 0)
  if (!dueLater && running >= slots && buffered > 0) {
    const detail = `All ${slots} slots of queue "${name}" are busy, and ${buffered} tasks are next in line before it`
    return { cause: 'window-full', detail }
  }
  if (dueLater) {
    const detail = `It failed ${task.failures} of at most ${task.maxAttempts} times; the next attempt is due at ${dueAt}`
    return { cause: 'retry-backoff', detail, until: dueAt }
  }
  if (running >= slots) return { cause: 'worker-busy', detail: `All ${slots} slots of queue "${name}" are busy` }
  return {
    cause: 'worker-busy',
    detail: `It is about to start: ${running} of ${slots} slots of queue "${name}" were busy lately`,
  }
}
