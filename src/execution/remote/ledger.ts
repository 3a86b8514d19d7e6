import { v5 as uuidv5 } from 'uuid'
import type { Clock } from '../../runtime/clock.ts'
import { formatDuration } from '../../runtime/duration.ts'
import type { Logger } from '../../runtime/log.ts'
import type { BeatAnswer, ClaimAnswer, Ledger, NodeState, Settled } from '../../task/ledger.ts'
import type { Tokens } from '../../task/topology/rate-limit.ts'
import { WORKER_LIMITS, type WorkerTopology } from '../../task/worker-protocol.ts'
import { createLedgerConnection, type LedgerConnection } from './ledger-connection.ts'

export interface RemoteLedgerSettings {
  /** Where the API is, without `/api/v1`. */
  url: string
  /** A key with the scope `work`. */
  key: string
  clock: Clock
  log: Logger
  /** Told what consumers and queues are, with the first beat and whenever a beat finds them changed. */
  onTopology(topology: WorkerTopology): void
}

export interface NewWorker {
  id: string
  name: string
  version: string
  /** Kind and vhost of its broker: it must be the server's (PROTOCOL 12). */
  broker?: string | undefined
  state: NodeState
}

/** The ledger of a worker without a database: the API's worker protocol. */
export interface RemoteLedger extends Ledger {
  /** Enters this worker under a new id; rejects when the server cannot be reached. */
  join(worker: NewWorker): Promise<void>
  leave(node: string): Promise<void>
  /** Waits, for some seconds at most, until the server has news for workers after `position`; a beat tells which. */
  nextNotice(position: string | undefined, signal: AbortSignal): Promise<{ notice: boolean; position: string }>
  /** As of the connection. */
  away: LedgerConnection['away']
  close: LedgerConnection['close']
  closed: LedgerConnection['closed']
}

/** One call holds at most so many deliveries: their payloads come back with the answer. */
export const CLAIMS_A_CALL = 100
/** And bodies of so many bytes together: on a slow line, too, the answer comes while what it claims may be started. */
export const CLAIM_BYTES_A_CALL = 2 * 1024 * 1024
/** And rows that weigh about so much together, in bytes of their JSON; far below what the server takes. */
const WEIGHT_A_CALL = 8 * 1024 * 1024
/** A beat that is answered later than this is a gap. */
const BEAT_WITHIN_MS = 8_000
/** Less than proxies let a request wait. */
const NOTICE_WITHIN_MS = 20_000
/** The process ends, with or without an answer. */
const LEAVE_WITHIN_MS = 3_000

export function createRemoteLedger(settings: RemoteLedgerSettings): RemoteLedger {
  const connection = createLedgerConnection(settings)
  let digest: string | null = null

  async function beat(body: object): Promise<BeatAnswer> {
    const { topology, ...answer } = await connection.post<
      BeatAnswer & { topology?: WorkerTopology & { digest: string } }
    >('/beats', { ...body, topology: digest }, { timeoutMs: BEAT_WITHIN_MS })
    if (topology) {
      digest = topology.digest
      settings.onTopology({ queues: topology.queues, consumers: topology.consumers })
    }
    return answer
  }

  return {
    async claim({ deliveries, ...claim }) {
      const answers: ClaimAnswer[] = []
      for (const [index, batch] of batches(deliveries, CLAIMS_A_CALL).entries()) {
        // The first part keeps the claim's own id; the others' are made of it, so that a repeated claim repeats them all.
        const claimId = index === 0 ? claim.claimId : uuidv5(String(index), claim.claimId)
        const body = { ...claim, claimId, deliveries: batch }
        answers.push(...(await connection.post<{ answers: ClaimAnswer[] }>('/claims', body)).answers)
      }
      return answers
    },

    async settle(node, settlements) {
      const settled: Settled[] = []
      const rows = settlements.map(({ id, attempt, outcome }) => ({ id, attempt, outcome }))
      for (const batch of batches(rows, WORKER_LIMITS.settlements)) {
        const body = { node, settlements: batch }
        settled.push(...(await connection.post<{ settled: Settled[] }>('/outcomes', body)).settled)
      }
      return settled
    },

    async report(node, reports) {
      for (const batch of batches(reports, WORKER_LIMITS.reports)) {
        await connection.post('/outcomes', { node, reports: batch })
      }
    },

    beat,
    takeTokens: (consumer, count) => connection.post<Tokens>('/tokens', { consumer, count }),
    hold: async (node, name) => (await connection.post<{ held: boolean }>('/locks', { node, name, hold: true })).held,
    async release(node, name) {
      await connection.post('/locks', { node, name, hold: false })
    },

    async join({ id, state, ...join }) {
      await beat({ node: id, join, state })
    },
    async leave(node) {
      await connection.post('/beats', { node, leave: true }, { timeoutMs: LEAVE_WITHIN_MS, last: true })
    },
    nextNotice(position, signal) {
      const query = new URLSearchParams({
        within: formatDuration(NOTICE_WITHIN_MS),
        ...(position && { after: position }),
      })
      return connection.get(`/notices?${query}`, NOTICE_WITHIN_MS * 2, signal)
    },
    away: connection.away,
    close: connection.close,
    closed: connection.closed,
  }
}

const weightOf = (row: object) => Buffer.byteLength(JSON.stringify(row))

function batches<T extends object>(rows: T[], atMost: number): T[][] {
  const made: T[][] = []
  let weight = 0
  for (const row of rows) {
    const own = weightOf(row)
    const last = made.at(-1)
    if (last && last.length < atMost && weight + own <= WEIGHT_A_CALL) {
      last.push(row)
      weight += own
    } else {
      made.push([row])
      weight = own
    }
  }
  return made
}
