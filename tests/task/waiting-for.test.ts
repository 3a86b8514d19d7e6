import { describe, expect, test } from 'bun:test'
import type { NodeState } from '../../src/task/ledger.ts'
import { STATUSES } from '../../src/task/status.ts'
import { type Situation, type WaitingTask, waitingFor } from '../../src/task/waiting-for.ts'

const NOW = '2026-01-01T00:00:00.000Z'
const LATER = '2026-01-01T00:10:00.000Z'

const waiting = (fields: Partial<WaitingTask> = {}): WaitingTask => ({
  queue: 'emails',
  status: 'pending',
  dueAt: NOW,
  failures: 0,
  maxAttempts: 10,
  node: null,
  childrenTotal: 0,
  childrenFinal: 0,
  sealed: false,
  ...fields,
})

const hands = (running: number, buffered: number): NodeState => ({
  broker: 'in-process',
  consumers: [{ id: 'c', queue: 'emails', concurrency: 10, running, buffered, rate: 1 }],
})

interface Around {
  paused?: boolean
  consumers?: { paused: boolean; concurrency: number }[]
  nodes?: NodeState[]
}
const around = ({ paused = false, consumers, nodes }: Around = {}): Situation => ({
  now: NOW,
  queues: new Map([['emails', { paused, consumers: consumers ?? [{ paused: false, concurrency: 10 }] }]]),
  nodes: new Map((nodes ?? [hands(0, 0)]).map((state, n) => [`node-${n}`, state])),
})
const cause = (task: WaitingTask, situation: Situation) => waitingFor(task, situation)?.cause

describe('waitingFor', () => {
  test('final tasks wait for nothing', () => {
    for (const status of ['succeeded', 'dead', 'cancelled'] as const) {
      expect(waitingFor(waiting({ status }), around({ paused: true }))).toBeNull()
    }
  })

  test('a task that runs as it should waits for nothing', () => {
    expect(waitingFor(waiting({ status: 'running', node: 'node-0' }), around())).toBeNull()
  })

  test('a task in the hands of a foreign consumer waits for nothing', () => {
    expect(waitingFor(waiting({ status: 'running' }), around({ nodes: [] }))).toBeNull()
  })

  test('a running task of a silent node says so', () => {
    expect(cause(waiting({ status: 'running', node: 'gone' }), around())).toBe('node-lost')
  })

  test('a parent whose own work is done waits for its children, and tells how many', () => {
    const parent = waiting({ status: 'running', sealed: true, childrenTotal: 5, childrenFinal: 3 })
    expect(waitingFor(parent, around())).toEqual({
      cause: 'children',
      detail: 'Its own work is done; 2 of its 5 children are not final yet',
    })
    expect(waitingFor({ ...parent, sealed: false, node: 'node-0' }, around())).toBeNull()
  })

  test('a task that is due later says until when, whatever its queue does', () => {
    expect(waitingFor(waiting({ dueAt: LATER }), around({ paused: true }))).toEqual({
      cause: 'due-later',
      detail: `It is due at ${LATER}`,
      until: LATER,
    })
  })

  test('the causes come in their order', () => {
    const none: Around['consumers'] = []
    const paused = [{ paused: true, concurrency: 10 }]
    const busy = [hands(10, 40)]
    expect(cause(waiting(), around({ paused: true, consumers: none }))).toBe('queue-paused')
    expect(cause(waiting(), around({ consumers: none }))).toBe('no-consumer')
    expect(cause(waiting(), { ...around(), queues: new Map() })).toBe('no-consumer')
    expect(cause(waiting(), around({ consumers: paused, nodes: busy }))).toBe('consumer-paused')
    expect(cause(waiting(), around({ consumers: [...paused, { paused: false, concurrency: 1 }], nodes: busy }))).toBe(
      'window-full',
    )
    expect(cause(waiting(), around({ nodes: busy }))).toBe('window-full')
    expect(cause(waiting(), around({ nodes: [hands(10, 0)] }))).toBe('worker-busy')
    expect(cause(waiting(), around())).toBe('worker-busy')
  })

  test('a consumer that no living node runs is no consumer', () => {
    expect(waitingFor(waiting(), around({ nodes: [] }))).toMatchObject({
      cause: 'no-consumer',
      detail: expect.stringContaining('living node'),
    })
  })

  test('a retrying task waits for its backoff, also while all slots are busy, and then for its turn', () => {
    const retrying = waiting({ status: 'retrying', dueAt: LATER, failures: 2 })
    expect(waitingFor(retrying, around({ nodes: [hands(10, 40)] }))).toEqual({
      cause: 'retry-backoff',
      detail: `It failed 2 of at most 10 times; the next attempt is due at ${LATER}`,
      until: LATER,
    })
    expect(cause(retrying, around({ paused: true }))).toBe('queue-paused')
    expect(cause({ ...retrying, dueAt: NOW }, around({ nodes: [hands(10, 40)] }))).toBe('window-full')
  })

  test('every live status but running always has a reason', () => {
    for (const status of STATUSES) {
      for (const dueAt of [NOW, LATER]) {
        const found = waitingFor(waiting({ status, dueAt }), around())
        if (status === 'pending' || status === 'queued' || status === 'retrying') expect(found?.detail).toBeTruthy()
        else expect(found).toBeNull()
      }
    }
  })
})
