import type { NodeState } from './ledger.ts'
import type { Status } from './status.ts'
import { exchangeOfLine, lineOf } from './topology/exchange.ts'
import type { SettlementKind } from './topology/queue.ts'
import type { Destination } from './topology/topology.ts'

/** Why a live task is not running. The first that holds, in this order, is told. */
export const CAUSES = [
  'due-later',
  'queue-paused',
  'no-consumer',
  'consumer-paused',
  'window-full',
  'rate-limited',
  'broker-down',
  'broker-blocked',
  'waiting-in-broker',
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
  /** What its message still has to go through. */
  exchange: string | null
}

/** What of a queue decides. */
export interface WaitingQueue {
  paused: boolean
  /** What is wrong with it at the broker, and what to do: nothing is handed to it. */
  conflict: string | null
  settlement: SettlementKind
  /** Longshore's; others are not known. */
  consumers: readonly { paused: boolean; concurrency: number }[]
}

/** What stands around tasks, as it was read last. */
export interface Situation {
  /** RFC 3339, by Postgres's clock. */
  now: string
  /** Queues, and exchanges by their lines. */
  queues: ReadonlyMap<string, WaitingQueue>
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

function waitingInLine(task: WaitingTask, situation: Situation): WaitingFor {
  const { queue: name, dueAt, status } = task
  const queue = situation.queues.get(name)
  const dueLater = Date.parse(dueAt) > Date.parse(situation.now)
  if (dueLater && status !== 'retrying') {
    return { cause: 'due-later', detail: `It is due at ${dueAt}`, until: dueAt }
  }
  const exchange = exchangeOfLine(name)
  if (exchange !== undefined)
    return (
      brokerTrouble(task, undefined, situation) ??
      toExchange(exchange, status, queue?.conflict ?? refusalOf({ kind: 'exchange', name: exchange }, situation))
    )
  if (queue?.paused) return { cause: 'queue-paused', detail: `Queue "${name}" is paused: resume it` }
  const hands = [...situation.nodes.values()].flatMap((node) => node.consumers.filter((one) => one.queue === name))
  const inOthersHands = queue?.consumers.length === 0 && usesRabbitMq(situation)
  const nobody = inOthersHands ? undefined : noConsumer(task, queue, hands, situation)
  if (nobody) return nobody
  if (dueLater) {
    const detail = `It failed ${task.failures} of at most ${task.maxAttempts} times; the next attempt is due at ${dueAt}`
    return { cause: 'retry-backoff', detail, until: dueAt }
  }
  const atHands = inOthersHands ? undefined : heldBack(name, hands, situation.now)
  return atHands ?? brokerTrouble(task, queue, situation) ?? (inOthersHands ? forOthers(task) : inTurn(task, hands))
}

type Hand = NodeState['consumers'][number]

function usesRabbitMq({ nodes }: Situation): boolean {
  return [...nodes.values()].some(({ broker }) => broker === 'rabbitmq')
}

/** Nobody takes from the queue: there is no consumer, all are paused, or no living node runs them. */
function noConsumer(
  task: WaitingTask,
  queue: WaitingQueue | undefined,
  hands: Hand[],
  situation: Situation,
): WaitingFor | undefined {
  const { queue: name } = task
  const consumers = queue?.consumers ?? []
  if (queue?.settlement === 'confirm') {
    const detail = `The tasks of queue "${name}" are for RabbitMQ alone ("settlement": "confirm"), and no living node uses it: set AMQP_URL`
    return { cause: 'no-consumer', detail }
  }
  if (consumers.length === 0)
    return { cause: 'no-consumer', detail: `No consumer takes from queue "${name}": create one` }
  if (consumers.every((consumer) => consumer.paused)) {
    const all = consumers.length === 1 ? 'The only consumer' : `All ${consumers.length} consumers`
    return {
      cause: 'consumer-paused',
      detail: `${all} of queue "${name}" ${consumers.length === 1 ? 'is' : 'are'} paused: resume one`,
    }
  }
  if (hands.length > 0) return undefined
  // Another node would not help, and of a new consumer the nodes may not have told yet.
  const conflict = notHanded(task, queue, situation)
  if (conflict) return conflict
  return {
    cause: 'no-consumer',
    detail: `No living node runs the consumer of queue "${name}": start one with the role "worker"`,
  }
}

const sum = (numbers: number[]) => numbers.reduce((total, number) => total + number, 0)
const slotsOf = (hands: Hand[]) => sum(hands.map(({ concurrency }) => concurrency))
const runningIn = (hands: Hand[]) => sum(hands.map(({ running }) => running))

/** The consumers are at work and take no more for now. */
function heldBack(name: string, hands: Hand[], now: string): WaitingFor | undefined {
  const [slots, running, buffered] = [slotsOf(hands), runningIn(hands), sum(hands.map((hand) => hand.buffered))]
  if (running >= slots && buffered > 0) {
    const detail = `All ${slots} slots of queue "${name}" are busy, and ${buffered} tasks are next in line before it`
    return { cause: 'window-full', detail }
  }
  const limits = hands.flatMap(({ limitedUntil }) => limitedUntil ?? []).sort()
  if (limits.length < hands.length) return undefined
  const [first = now] = limits
  return {
    cause: 'rate-limited',
    detail: `The rate limits of queue "${name}" are reached: its consumers start tasks as these allow`,
    // Of a fast limit, the beat that told it is older than the wait.
    ...(Date.parse(first) > Date.parse(now) && { until: first }),
  }
}

/** RabbitMQ does not take the task, or does not give it out. */
function brokerTrouble(
  task: WaitingTask,
  queue: WaitingQueue | undefined,
  situation: Situation,
): WaitingFor | undefined {
  const { nodes, queues } = situation
  const { queue: name, status, exchange } = task
  // What the broker has is up to the nodes that consume, everything else to any node that publishes.
  const all = [...nodes.values()].filter(({ link }) => link !== undefined)
  const consuming = all.filter(({ consumers }) => consumers.some((one) => one.queue === name))
  const links = (status === 'queued' && consuming.length > 0 ? consuming : all).flatMap(({ link }) => link ?? [])
  if (links.length > 0 && links.every((link) => link.status !== 'up')) {
    const blocked = links.find((link) => link.status === 'blocked')
    if (!blocked) {
      const { since, reason } = links[0] as (typeof links)[number]
      return { cause: 'broker-down', detail: `No node reaches RabbitMQ since ${since}${because(reason)}` }
    }
    if (status !== 'queued') {
      const detail = `RabbitMQ takes no messages since ${blocked.since}${because(blocked.reason)}`
      return { cause: 'broker-blocked', detail }
    }
  }
  const silent = unconfirmed(task, situation)
  if (silent) return silent
  if (status === 'queued') return undefined
  const trouble = notHanded(task, queue, situation)
  if (trouble || exchange === null) return trouble
  const conflict = queues.get(lineOf(exchange))?.conflict ?? refusalOf({ kind: 'exchange', name: exchange }, situation)
  return conflict ? throughExchange(exchange, conflict) : undefined
}

/** The broker takes messages to the task's queue or exchange, and confirms none. */
function unconfirmed({ queue, exchange }: WaitingTask, { nodes }: Situation): WaitingFor | undefined {
  const found = [...nodes.values()]
    .flatMap(({ link }) => link?.unconfirmed ?? [])
    .find(({ kind, name }) => name === (kind === 'queue' ? queue : exchange))
  if (!found) return undefined
  const { kind, name } = found
  const it = kind === 'queue' ? 'it' : 'a queue behind it'
  const detail = `RabbitMQ confirms no messages to ${kind} "${name}": has ${it} lost its majority, or is it full? Bring the nodes of RabbitMQ back that hold it; if they have lost it, delete the queue there: it is made anew, and its tasks are sent again`
  return { cause: 'broker-blocked', detail }
}

/** The broker has the task's queue otherwise than it is here, or does not let a node publish to it. */
function notHanded(
  { queue: name, status }: WaitingTask,
  queue: WaitingQueue | undefined,
  situation: Situation,
): WaitingFor | undefined {
  if (status === 'queued') return undefined
  const why = queue?.conflict ?? refusalOf({ kind: 'queue', name }, situation)
  return why ? { cause: 'broker-blocked', detail: `Nothing is handed to queue "${name}". ${why}` } : undefined
}

/** What a node says that the broker does not let publish there, and what to do. */
function refusalOf({ kind, name }: Destination, { nodes }: Situation): string | null {
  for (const [id, { refused = [] }] of nodes) {
    if (!refused.some((one) => one.kind === kind && one.name === name)) continue
    const right =
      kind === 'queue' ? 'the default exchange (amq.default), through which queues are reached' : `"${name}"`
    return `RabbitMQ does not let node ${id} publish to it: give the user of its AMQP_URL the permission "write" on ${right}. It is tried again every 15 seconds`
  }
  return null
}

function because(reason: string | null): string {
  return reason === null ? '' : `: ${reason}`
}

/** A task that is fanned out is in no queue: it waits to be published to its exchange. */
function toExchange(exchange: string, status: Status, conflict: string | null): WaitingFor {
  if (status === 'queued') {
    const detail = `It is published to exchange "${exchange}", and RabbitMQ has not confirmed it yet`
    return { cause: 'waiting-in-broker', detail }
  }
  if (conflict) return throughExchange(exchange, conflict)
  return { cause: 'window-full', detail: `Others are published to exchange "${exchange}" before it` }
}

function throughExchange(exchange: string | null, conflict: string): WaitingFor {
  return { cause: 'broker-blocked', detail: `Nothing is published to exchange "${exchange}". ${conflict}` }
}

/** On a queue without consumers of Longshore, whose tasks others take from RabbitMQ. */
function forOthers({ queue: name, status }: WaitingTask): WaitingFor {
  const whose = `no consumer of Longshore takes from queue "${name}": one of your own does, or create one`
  if (status === 'queued') return { cause: 'waiting-in-broker', detail: `It is in RabbitMQ, and ${whose}` }
  return { cause: 'window-full', detail: `It goes to RabbitMQ when the queue's window there has room; ${whose}` }
}

function inTurn({ queue: name, status }: WaitingTask, hands: Hand[]): WaitingFor {
  const [slots, running] = [slotsOf(hands), runningIn(hands)]
  if (status === 'queued') {
    const detail = `It is in RabbitMQ, and ${running} of ${slots} slots of queue "${name}" were busy lately`
    return { cause: 'waiting-in-broker', detail }
  }
  if (running >= slots) return { cause: 'worker-busy', detail: `All ${slots} slots of queue "${name}" are busy` }
  return {
    cause: 'worker-busy',
    detail: `It is about to start: ${running} of ${slots} slots of queue "${name}" were busy lately`,
  }
}
