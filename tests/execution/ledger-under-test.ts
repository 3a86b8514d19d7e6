import { expect } from 'bun:test'
import { v7 } from 'uuid'
import { markSilentNodes } from '../../src/store/nodes.ts'
import type { ClaimAnswer, DeliveryClaim, Ledger } from '../../src/task/ledger.ts'
import type { ClaimedTask } from '../../src/task/task.ts'
import type { TaskLedger } from '../support/tasks.ts'

export interface LedgerUnderTest {
  ledger: Ledger
  /** The rows behind it. */
  tasks: TaskLedger
  /** Enters a node through this implementation. */
  join(): Promise<string>
  /** Rejections that are about one row. */
  isBadRow(error: unknown): boolean
  close(): Promise<void>
}

export function taskOf(answer: ClaimAnswer | undefined): ClaimedTask {
  if (answer?.kind !== 'claimed') throw new Error(`It was not claimed: ${answer?.kind}`)
  return answer.task
}

/** A repeated claim does not say again how long its tasks had waited. */
export function withoutWait(answer: ClaimAnswer): ClaimAnswer {
  if (answer.kind !== 'claimed') return answer
  const { waitedMs: _, ...task } = answer.task
  return { kind: 'claimed', task }
}

type ForeignClaim = Extract<DeliveryClaim, { kind: 'foreign' }>

export function foreign(changes: Partial<ForeignClaim> = {}): ForeignClaim {
  return {
    kind: 'foreign',
    id: v7(),
    payload: '{"from":"elsewhere"}',
    type: null,
    priority: 0,
    traceparent: null,
    message: {
      exchange: 'orders',
      routingKey: 'order.new',
      properties: { messageId: 'm-1', appId: 'shop' },
      headers: { 'x-tenant': 7, nested: { list: [1, null, true] } },
    },
    ...changes,
  }
}

export function unreadable(): Extract<DeliveryClaim, { kind: 'unreadable' }> {
  const { message } = foreign()
  return {
    ...foreign(),
    kind: 'unreadable',
    reason: 'It is not UTF-8',
    payload: 'null',
    message: { unreadable: true, ...message, body: '/w==' },
  }
}

/** As a rescuer that has seen it silent for too long. */
export async function killNode(tasks: TaskLedger, id: string): Promise<void> {
  const rescuer = await tasks.join()
  await tasks.pool.query(`update nodes set steady_since = now() - interval '1 min' where id = $1`, [rescuer])
  await tasks.pool.query(`update nodes set beat_at = now() - interval '1 min' where id = $1`, [id])
  expect(await markSilentNodes(tasks.pool, rescuer, 15_000)).toEqual([id])
}
