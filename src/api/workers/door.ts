import { createHash } from 'node:crypto'
import { messageOf, Problem } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Database } from '../../store/database/database.ts'
import { isRefusedRow } from '../../store/database/statement.ts'
import { joinNode, keyOfNode, leaveNode } from '../../store/nodes.ts'
import { knownAttempts } from '../../store/tasks/claim/known-attempts.ts'
import type { Attempt, BeatAnswer, ClaimAnswer, Ledger, NodeState, Settled, Settlement } from '../../task/ledger.ts'
import type { BeatsBody, WorkerTopology } from '../../task/worker-protocol.ts'
import type { ClaimsRequest, OutcomesRequest } from './bodies.ts'

export interface WorkerDoorDeps {
  pool: Database['pool']
  ledger: Ledger
  log: Logger
  /** Kind and vhost of this node's broker. */
  broker: string
  /** What workers go by now. */
  topology(): Promise<WorkerTopology>
  /** Told of attempts that ended, after the commit. */
  onSettled(settlements: Settlement[], settled: Settled[]): void
}

export type WorkerBeatAnswer = BeatAnswer & { topology?: WorkerTopology & { digest: string } }

/** The ledger as workers without a database reach it. What belongs to one key's workers is out of reach of the others. */
export interface WorkerDoor {
  claim(claim: ClaimsRequest, key: string): Promise<ClaimAnswer[]>
  settle(outcomes: OutcomesRequest, key: string): Promise<Settled[]>
  beat(beat: BeatsBody, key: string): Promise<WorkerBeatAnswer>
  /** True when the node has the name after the call. */
  lock(lock: { node: string; name: string; hold: boolean }, key: string): Promise<boolean>
}

/** Whose a node is never changes; so many are remembered. */
const OWNERS_KEPT = 10_000
/** What was told to a node that is not among the living. */
const GONE: BeatAnswer = { alive: false, cancel: [], unnamed: [], others: 0 }
const IDLE: NodeState = { broker: 'rabbitmq', consumers: [] }

export function createWorkerDoor(deps: WorkerDoorDeps): WorkerDoor {
  const { pool, ledger, log, topology, onSettled } = deps
  const owners = new Map<string, string | null>()

  async function ownerOf(node: string): Promise<string | null | undefined> {
    const known = owners.get(node)
    if (known !== undefined) return known
    const owner = await keyOfNode(pool, node)
    if (owner === undefined) return undefined
    const [oldest] = owners.keys()
    if (owners.size >= OWNERS_KEPT && oldest !== undefined) owners.delete(oldest)
    owners.set(node, owner)
    return owner
  }

  /** False for an id that never joined. */
  async function joinedBy(key: string, node: string): Promise<boolean> {
    const owner = await ownerOf(node)
    if (owner === undefined) return false
    if (owner !== key) throw new Problem('foreign-node', `The node "${node}" did not join under this key`)
    return true
  }

  async function enter(
    worker: { id: string; name: string; version: string; broker?: string; state: NodeState },
    key: string,
  ) {
    const { broker = deps.broker, ...node } = worker
    if (broker !== deps.broker) {
      throw new Problem('other-broker', `The worker’s broker is "${broker}", and the server’s is "${deps.broker}"`)
    }
    await joinNode(pool, { ...node, broker, roles: ['worker'], key })
  }

  async function topologyBut(digest: string | null): Promise<Pick<WorkerBeatAnswer, 'topology'>> {
    const present = await topology()
    const now = createHash('sha256').update(JSON.stringify(present)).digest('hex').slice(0, 32)
    return now === digest ? {} : { topology: { digest: now, ...present } }
  }

  /** What a row of the batch made the ledger refuse is the caller's to hear of. */
  async function storable<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      if (error instanceof Problem || !isRefusedRow(error)) throw error
      log.warn({ event: 'worker-batch-refused', error: messageOf(error) }, 'The ledger refused what a worker sent')
      throw new Problem('unstorable', `The ledger cannot hold a row of this batch: ${messageOf(error)}`, [], {
        cause: error,
      })
    }
  }

  /** Each with what the ledger knows of its attempt; those that are not this node's are left out. */
  async function known({ node, settlements }: OutcomesRequest): Promise<Map<string, Settlement>> {
    const attempts = new Map(
      (await knownAttempts(pool, node, settlements)).map((attempt): [string, Attempt] => [keyOf(attempt), attempt]),
    )
    return new Map(
      settlements.flatMap(({ id, attempt, outcome }): [string, Settlement][] => {
        const found = attempts.get(keyOf({ id, attempt }))
        return found ? [[keyOf(found), { ...found, outcome }]] : []
      }),
    )
  }

  return {
    async claim(claim, key) {
      if (!(await joinedBy(key, claim.node))) {
        throw new Problem('unknown-node', `Nobody joined as "${claim.node}": send a beat with "join" first`)
      }
      return storable(ledger.claim(claim))
    },

    async settle(outcomes, key) {
      const { node, reports, settlements } = outcomes
      const late = ({ id }: { id: string }): Settled => ({ id, late: true })
      if (!(await joinedBy(key, node))) return settlements.map(late)
      if (reports.length > 0) await storable(ledger.report(node, reports))
      if (settlements.length === 0) return []
      const mine = await known(outcomes)
      const batch = [...mine.values()]
      const settled = batch.length === 0 ? [] : await storable(ledger.settle(node, batch))
      onSettled(batch, settled)
      const ends = new Map(batch.map((settlement, index) => [keyOf(settlement), settled[index]]))
      return settlements.map((settlement) => {
        const end = ends.get(keyOf(settlement))
        // The same attempt twice in one batch: the second one is late.
        ends.delete(keyOf(settlement))
        return end ?? late(settlement)
      })
    },

    async beat({ node, join, leave, held = [], started = [], confirmed, state = IDLE, topology: digest }, key) {
      if (join) await enter({ id: node, ...join, state }, key)
      if (!(await joinedBy(key, node))) return GONE
      if (leave) {
        await leaveNode(pool, node)
        return GONE
      }
      const answer = await ledger.beat({ node, held, started, confirmed, state })
      return digest === undefined || !answer.alive ? answer : { ...answer, ...(await topologyBut(digest)) }
    },

    async lock({ node, name, hold }, key) {
      if (!(await joinedBy(key, node))) return false
      if (hold) return ledger.hold(node, name)
      await ledger.release(node, name)
      return false
    },
  }
}

const keyOf = ({ id, attempt }: { id: string; attempt: number }) => `${id}/${attempt}`
