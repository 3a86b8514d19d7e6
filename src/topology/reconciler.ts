import type { Broker, BrokerTopology, Declared } from '../broker/broker.ts'
import { type Clock, pause } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Service } from '../runtime/service.ts'
import type { Conflict } from '../store/topology/conflicts.ts'
import type { Topology } from '../task/topology/topology.ts'
import { brokerTopology, conflictText, type Parts, partsOf } from './desired.ts'
import { createLeftovers } from './leftovers.ts'

export interface ReconcilerDeps {
  broker: Pick<Broker, 'kind' | 'declare' | 'remove' | 'state' | 'onChange'>
  clock: Clock
  log: Logger
  /** The broker's epoch as the ledger knows it; undefined before the first. */
  epoch(): Promise<string | undefined>
  /** Sends again what was handed to queues that the broker does not have (PROTOCOL 11). */
  onMissing(queues: string[]): Promise<void>
  /** Begins the epoch after `seen`, unless another node has, and sends again all that was handed to the broker. Gives the present one. */
  onWiped(seen: string | undefined): Promise<string>
  /** Shows these conflicts on what of `declared` they are about, and no conflict on the rest of it. */
  saveConflicts(declared: BrokerTopology, conflicts: Conflict[]): Promise<void>
  /** These queues may be published to from now on. */
  onReady(queues: string[]): void
}

export interface Reconciler extends Service {
  /** What the rows say now. */
  desire(topology: Omit<Topology, 'consumers'>): void
  /** It was declared as it is desired, on the present connection, and the broker has it so: it may be published to. */
  isReady(queue: string): boolean
  /** As of a queue, with all its bindings. */
  isExchangeReady(exchange: string): boolean
  /** The broker seems to have lost the queue: it is looked for, and declared again. */
  recheck(queue: string): void
  /** Resolves when nothing is being declared. */
  idle(): Promise<void>
}

const FIRST_RETRY_MS = 500
const LONGEST_RETRY_MS = 30_000
/** What differs, or is in use, may have changed at the broker, which tells nobody; what does not, may have been taken away there. */
const RECHECK_MS = 15_000
const RENEW_MS = 5 * 60_000

/**
 * A queue that was deleted stays away for so long: were it there again before RabbitMQ has told its consumers, RabbitMQ
 * would carry them over without a word, and drop what a quorum queue then delivers (it counts from the beginning) as known.
 */
const GONE_FOR_MS = 250

/** The broker is not of the epoch that the ledger knows. */
class OtherEpoch extends Error {
  override readonly message = 'the broker is of another epoch'
}

/**
 * Makes the broker have what the rows say: at the start, after every change, on every new connection. One declaration
 * at a time, of what was desired last; on an unbroken connection it is looked after every few minutes, sooner what conflicts
 * here or by the rows.
 */
export function createReconciler(deps: ReconcilerDeps): Reconciler {
  const { broker, clock, log } = deps
  let desired = brokerTopology({ queues: [], exchanges: [], bindings: [] })
  let parts = partsOf(desired)
  let ready = nothingReady()
  const leftovers = createLeftovers(broker)
  let connection = 0
  /** Queues that may be gone although they were declared. */
  const suspects = new Set<string>()
  let due = false
  let running = false
  let stopped = new AbortController()
  let busy = false
  let working: Promise<void> = Promise.resolve()
  let cancelTimer: (() => void) | undefined
  let timerAt = 0
  /** The rows show a conflict: whoever has found it may be gone, so that every node looks whether it is over. */
  let isShown = false
  let failures = 0
  let told = ''
  /** An epoch that began here, and whose mark is not at the broker yet. */
  let unmarked: string | undefined

  function trigger(): void {
    if (!running) return
    due = true
    cancelTimer?.()
    cancelTimer = undefined
    if (busy) return
    busy = true
    working = work().finally(() => {
      busy = false
    })
  }

  async function work(): Promise<void> {
    // While it is down, its return is what counts.
    while (running && due && broker.state().status !== 'down') {
      due = false
      const on = connection
      try {
        await reconcile(on)
        failures = 0
      } catch (error) {
        // What comes after a new connection, or a change, need not wait.
        if (due || on !== connection) continue
        failed(error)
      }
    }
  }

  function failed(error: unknown): void {
    log.warn({ event: 'topology-not-declared', error: messageOf(error) }, 'Cannot declare what the broker should have')
    if (broker.state().status !== 'down') later(Math.min(LONGEST_RETRY_MS, FIRST_RETRY_MS * 2 ** failures++))
  }

  function later(ms: number): void {
    cancelTimer?.()
    if (!running) return
    timerAt = clock.now() + ms
    cancelTimer = clock.after(ms, trigger)
  }

  async function reconcile(on: number): Promise<void> {
    const topology = desired
    const looked = [...suspects]
    leftovers.making(topology)
    const declared = await declareInEpoch(topology)
    const conflicts = declared.conflicts.map((one): Conflict => {
      return { kind: one.kind, name: one.name, text: conflictText(one) }
    })
    tell(declared.conflicts)
    await deps.saveConflicts(topology, conflicts)
    if (on !== connection) return
    for (const name of looked) suspects.delete(name)
    becomeReady(topology, conflicts, looked)
    const isClean = await leftovers.takeAway(topology, conflicts)
    if (!due) later(conflicts.length > 0 || isShown || !isClean ? RECHECK_MS : RENEW_MS)
  }

  /**
   * What is gone is dealt with before anything is made: were this node to die after that, the broker would look well to
   * all others. A broker without the mark of the epoch gets that of the next one.
   */
  async function declareInEpoch(topology: BrokerTopology): Promise<Declared> {
    let epoch = await deps.epoch()
    let doubted = false
    const begin = async () => {
      epoch = await deps.onWiped(epoch)
      unmarked = epoch
    }
    if (epoch === undefined) await begin()
    // Within the process it is as new as that, and nothing was ever left in it.
    else if (broker.kind === 'in-process') unmarked = epoch
    for (;;) {
      try {
        const declared = await broker.declare({ ...topology, epoch }, async ({ missing, wiped }) => {
          if (wiped && epoch !== unmarked) throw new OtherEpoch()
          if (missing.length > 0) await deps.onMissing(missing)
          if (missing.some((name) => ready.queues.has(name))) await pause(clock, GONE_FOR_MS, stopped.signal)
        })
        unmarked = undefined
        return declared
      } catch (error) {
        if (!(error instanceof OtherEpoch) || !running) throw error
        if (!doubted) {
          // Another node may have begun it just now, and is about to leave its mark.
          doubted = true
          await pause(clock, GONE_FOR_MS, stopped.signal)
          epoch = await deps.epoch()
          continue
        }
        // One within the process is as new as that is: no news.
        if (broker.kind !== 'in-process')
          log.warn(
            { event: 'broker-wiped' },
            'The broker has lost everything, or is another one: what it held is sent again',
          )
        await begin()
      }
    }
  }

  function becomeReady(topology: BrokerTopology, conflicts: Conflict[], looked: string[]): void {
    const before = ready
    ready = readyOf(topology, conflicts)
    // What has to go through an exchange waits in any of the queues.
    const through = [...ready.exchanges].some(([name, text]) => before.exchanges.get(name) !== text)
    const same = (name: string, text: string) => before.queues.get(name) === text && !looked.includes(name)
    const newly = [...ready.queues].flatMap(([name, text]) => (same(name, text) && !through ? [] : [name]))
    if (newly.length > 0) deps.onReady(newly)
  }

  function tell(conflicts: Declared['conflicts']): void {
    const now = JSON.stringify(conflicts)
    if (now === told) return
    told = now
    for (const { kind, name, difference } of conflicts)
      log.error({ event: 'topology-conflict', kind, name, difference }, 'The broker has it otherwise: it stands still')
  }

  broker.onChange((queue) => {
    if (queue !== undefined) return
    if (broker.state().status === 'down') {
      connection++
      ready = nothingReady()
      return
    }
    if (ready.connection !== connection) trigger()
  })

  function readyOf(topology: BrokerTopology, conflicts: Conflict[]) {
    const { queues, exchanges } = partsOf(topology)
    const without = (known: Parts, kind: Conflict['kind']): Map<string, string> => {
      const differing = new Set(conflicts.flatMap((one) => (one.kind === kind ? [one.name] : [])))
      return new Map([...known].filter(([name]) => !differing.has(name)))
    }
    return { connection, queues: without(queues, 'queue'), exchanges: without(exchanges, 'exchange') }
  }

  return {
    desire(topology) {
      isShown = [...topology.queues, ...topology.exchanges].some(({ conflict }) => conflict !== null)
      if (isShown && cancelTimer && timerAt > clock.now() + RECHECK_MS) later(RECHECK_MS)
      const next = brokerTopology(topology)
      if (JSON.stringify(next) === JSON.stringify(desired)) return
      desired = next
      parts = partsOf(next)
      trigger()
    },
    isReady: (queue) => !suspects.has(queue) && isSame(ready.queues, parts.queues, queue),
    isExchangeReady: (exchange) => isSame(ready.exchanges, parts.exchanges, exchange),
    recheck(queue) {
      if (!parts.queues.has(queue) || suspects.has(queue)) return
      suspects.add(queue)
      trigger()
    },
    idle: () => working,
    async start() {
      running = true
      stopped = new AbortController()
      trigger()
    },
    async stop() {
      running = false
      stopped.abort()
      cancelTimer?.()
      cancelTimer = undefined
      await working
    },
  }
}

function nothingReady(): { connection: number; queues: Map<string, string>; exchanges: Map<string, string> } {
  // Of no connection.
  return { connection: -1, queues: new Map(), exchanges: new Map() }
}

function isSame(declared: Parts, desired: Parts, name: string): boolean {
  const text = declared.get(name)
  return text !== undefined && text === desired.get(name)
}
