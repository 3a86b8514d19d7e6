import { type Clock, within } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { createPeriodic } from '../runtime/periodic.ts'
import type { Service } from '../runtime/service.ts'
import type { BeatAnswer, Ledger, NodeState, Settlement } from '../task/ledger.ts'
import { LIMITS } from '../task/limits.ts'

export interface HeartDeps {
  ledger: Pick<Ledger, 'beat'>
  clock: Clock
  log: Logger
  newId(): string
  /** Enters this node into the ledger under a new id. */
  join(id: string): Promise<void>
  leave(id: string): Promise<void>
  hands(): { id: string; started: boolean }[]
  state(): NodeState
  /** Every publish of this node up to this number is confirmed; undefined in-process. */
  confirmed?: (() => number) | undefined
  cancel(ids: string[]): void
  /** This node was declared dead: ends everything that it did under its old id. */
  onDead(): Promise<void>
  /** It is back under a new id and begins anew. */
  onRevived(): Promise<void>
  /** How many other nodes live, after each beat. */
  onOthers(count: number): void
  /** Ends attempts that the ledger thinks are ours and that nobody here knows. */
  giveBack(settlements: Settlement[]): Promise<void>
}

export interface Heart extends Service {
  /** This node's id: new at every start and after every death (PROTOCOL 5). */
  node(): string
  /** False when the last committed beat is 10 s old: nothing new is started. */
  mayStart(): boolean
  /** Milliseconds for which beats have been committed without a gap. */
  steadyMs(): number
  /** Beats soon instead of at the next turn: what this node does has changed. */
  beatSoon(): void
}

const BEAT_MS = 5_000
/** Two beats missed: others may soon take this node for dead. */
const START_WITHIN_MS = 10_000
/** A beat that takes longer than this is a gap, and so is one that comes this late. */
const GAP_MS = 10_000
const RETRY_MS = 500
/** How long abandoned work may take to end before the node comes back without waiting for it. */
const ABANDON_WITHIN_MS = 10_000

/** Keeps this node alive in the ledger and its hands in agreement with it (PROTOCOL 3, 5). */
export function createHeart(deps: HeartDeps): Heart {
  const { ledger, clock, log } = deps
  let id = deps.newId()
  let lastBeat = Number.NEGATIVE_INFINITY
  let steadySince = Number.POSITIVE_INFINITY
  /** Rows that we do not have, and since when the ledger has told of them. */
  let unnamedSince = new Map<string, number>()
  /** Declared dead, and not back yet. */
  let isGone = false

  function noteBeat(at: number): void {
    if (at - lastBeat > GAP_MS) steadySince = at
    lastBeat = at
  }

  async function beat(): Promise<void> {
    if (isGone) return comeBack()
    // Taken before the beat is sent: the commit is never older than this.
    const at = clock.now()
    const hands = deps.hands()
    const answer = await ledger.beat({
      node: id,
      held: hands.map((held) => held.id),
      started: hands.filter((held) => held.started).map((held) => held.id),
      confirmed: deps.confirmed?.(),
      state: deps.state(),
    })
    if (!answer.alive) {
      await dropWork()
      return comeBack()
    }
    noteBeat(at)
    deps.onOthers(answer.others)
    if (answer.cancel.length > 0) deps.cancel(answer.cancel)
    await returnUnnamed(answer)
  }

  /** Rows that were not ours in two beats running, and for too long to be started still, are given back: the answer to their claim was lost. */
  async function returnUnnamed(answer: BeatAnswer): Promise<void> {
    const key = (row: { id: string; attempt: number }) => `${row.id}/${row.attempt}`
    const held = new Set(deps.hands().map((one) => one.id))
    const now = clock.now()
    const since = (row: { id: string; attempt: number }) => unnamedSince.get(key(row)) ?? now
    const strays = answer.unnamed.filter((row) => now - since(row) >= LIMITS.startKnownWithinMs && !held.has(row.id))
    unnamedSince = new Map(answer.unnamed.map((row) => [key(row), since(row)]))
    if (strays.length === 0) return
    log.warn(
      { event: 'strays-returned', tasks: strays.length },
      'Gives back tasks that are running here by the ledger only',
    )
    await deps.giveBack(strays.map((row) => ({ ...row, outcome: { kind: 'returned' } })))
  }

  async function dropWork(): Promise<void> {
    log.error(
      { event: 'node-declared-dead', node: id },
      'This node was declared dead; it drops its work and comes back',
    )
    lastBeat = Number.NEGATIVE_INFINITY
    steadySince = Number.POSITIVE_INFINITY
    await within(clock, ABANDON_WITHIN_MS, deps.onDead(), undefined)
    isGone = true
  }

  /** Each try has an id of its own: one whose answer was lost may have joined, and be dead again by the next. */
  async function comeBack(): Promise<void> {
    id = deps.newId()
    unnamedSince = new Map()
    await enter()
    await deps.onRevived()
    isGone = false
  }

  async function enter(): Promise<void> {
    const at = clock.now()
    await deps.join(id)
    noteBeat(at)
    log.info({ event: 'node-joined', node: id })
  }

  const beats = createPeriodic({
    name: 'beat',
    description: 'Tells the ledger that this node lives and what it holds',
    everyMs: BEAT_MS,
    retryMs: RETRY_MS,
    clock,
    run: beat,
    onError: (error) =>
      log.warn({ event: 'beat-failed', node: id, error: messageOf(error) }, 'Cannot beat; trying again'),
  })

  return {
    periodic: [beats],
    node: () => id,
    mayStart: () => clock.now() - lastBeat < START_WITHIN_MS,
    // A beat that is overdue may be the first of a gap.
    steadyMs: () => (clock.now() - lastBeat > GAP_MS ? 0 : Math.max(0, lastBeat - steadySince)),
    beatSoon: () => beats.wake(),
    async start() {
      await enter()
      beats.start()
    },
    async stop() {
      await beats.stop()
      await deps.leave(id).catch((error) => log.warn({ event: 'leave-failed', node: id, error: messageOf(error) }))
    },
  }
}
