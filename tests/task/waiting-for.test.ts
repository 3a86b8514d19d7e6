import { describe, expect, test } from 'bun:test'
import type { BrokerState, NodeState } from '../../src/task/ledger.ts'
import { STATUSES } from '../../src/task/status.ts'
import type { Destination } from '../../src/task/topology/topology.ts'
import { CAUSES, type Situation, type WaitingQueue, type WaitingTask, waitingFor } from '../../src/task/waiting-for.ts'

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
  exchange: null,
  ...fields,
})

const hands = (running: number, buffered: number, limitedUntil?: string): NodeState => ({
  broker: 'in-process',
  consumers: [{ id: 'c', queue: 'emails', concurrency: 10, running, buffered, rate: 1, limitedUntil }],
})
/** Of a node that stands so with RabbitMQ. */
const rabbit = (status: BrokerState['status'], state: NodeState = hands(0, 0)): NodeState => ({
  ...state,
  broker: 'rabbitmq',
  link: { status, since: NOW, reason: status === 'up' ? null : 'no luck', connections: [] },
})
const idle = (status: BrokerState['status']) => rabbit(status, { broker: 'rabbitmq', consumers: [] })

interface Around {
  paused?: boolean
  consumers?: { paused: boolean; concurrency: number }[]
  nodes?: NodeState[]
  conflict?: string
  settlement?: WaitingQueue['settlement']
}
const around = ({ paused = false, consumers, nodes, conflict, settlement }: Around = {}): Situation => ({
  now: NOW,
  queues: new Map([
    [
      'emails',
      {
        paused,
        conflict: conflict ?? null,
        settlement: settlement ?? 'outcome',
        consumers: consumers ?? [{ paused: false, concurrency: 10 }],
      },
    ],
  ]),
  nodes: new Map((nodes ?? [hands(0, 0)]).map((state, n) => [`node-${n}`, state])),
})
const cause = (task: WaitingTask, situation: Situation) => waitingFor(task, situation)?.cause

describe('waitingFor', () => {
  test('what is to be fanned out waits for RabbitMQ and its exchange, and for no consumer', () => {
    const line = (fields: Partial<WaitingTask> = {}) => waiting({ queue: 'exchange/orders', ...fields })
    const up = around({ nodes: [idle('up')] })
    expect(waitingFor(line(), up)).toMatchObject({ cause: 'window-full', detail: expect.stringContaining('"orders"') })
    expect(cause(line({ status: 'queued' }), up)).toBe('waiting-in-broker')
    expect(cause(line({ dueAt: LATER }), up)).toBe('due-later')
    expect(cause(line(), around({ nodes: [idle('down')] }))).toBe('broker-down')
    expect(cause(line(), around({ nodes: [idle('blocked')] }))).toBe('broker-blocked')
    const conflict = { paused: false, conflict: 'It is direct.', settlement: 'outcome', consumers: [] } as const
    const held = { ...up, queues: new Map([['exchange/orders', conflict]]) }
    expect(waitingFor(line(), held)).toMatchObject({
      cause: 'broker-blocked',
      detail: expect.stringContaining('It is'),
    })
    const parent = line({ status: 'running', sealed: true, childrenTotal: 2, childrenFinal: 1 })
    expect(cause(parent, up)).toBe('children')
  })

  test('what still has to go through an exchange that the broker has otherwise waits for that', () => {
    const up = around({ nodes: [rabbit('up')] })
    const conflict = { paused: false, conflict: 'It is direct.', settlement: 'outcome', consumers: [] } as const
    const held = { ...up, queues: new Map([...up.queues, ['exchange/orders', conflict]]) }
    expect(waitingFor(waiting({ exchange: 'orders' }), held)).toEqual({
      cause: 'broker-blocked',
      detail: 'Nothing is published to exchange "orders". It is direct.',
    })
    for (const task of [waiting(), waiting({ exchange: 'others' })]) expect(cause(task, held)).toBe('worker-busy')
    expect(cause(waiting({ exchange: 'orders', status: 'queued' }), held)).toBe('waiting-in-broker')
  })

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

  test('a rate limit that all consumers have reached is told, with its end while that is ahead', () => {
    expect(waitingFor(waiting(), around({ nodes: [hands(3, 2, LATER), hands(0, 0, LATER)] }))).toMatchObject({
      cause: 'rate-limited',
      until: LATER,
    })
    expect(waitingFor(waiting(), around({ nodes: [hands(3, 2, NOW)] }))).not.toHaveProperty('until')
    expect(cause(waiting(), around({ nodes: [hands(3, 2, LATER), hands(0, 0)] }))).toBe('worker-busy')
    expect(cause(waiting(), around({ nodes: [hands(10, 2, LATER)] }))).toBe('window-full')
    expect(cause(waiting({ status: 'retrying', dueAt: LATER }), around({ nodes: [hands(3, 2, LATER)] }))).toBe(
      'retry-backoff',
    )
  })

  test('a broker that no node reaches, or that takes nothing, is told with its reason', () => {
    expect(waitingFor(waiting(), around({ nodes: [rabbit('down'), idle('down')] }))).toEqual({
      cause: 'broker-down',
      detail: `No node reaches RabbitMQ since ${NOW}: no luck`,
    })
    expect(cause(waiting(), around({ nodes: [rabbit('down'), idle('blocked')] }))).toBe('broker-blocked')
    expect(cause(waiting(), around({ nodes: [rabbit('down'), idle('up')] }))).toBe('worker-busy')
    expect(cause(waiting(), around({ nodes: [rabbit('down', hands(3, 0, LATER))] }))).toBe('rate-limited')
  })

  test('what the broker has waits there, and for the nodes that consume', () => {
    const queued = waiting({ status: 'queued' })
    expect(cause(queued, around({ nodes: [rabbit('up')] }))).toBe('waiting-in-broker')
    expect(cause(queued, around({ nodes: [rabbit('up', hands(10, 0))] }))).toBe('waiting-in-broker')
    expect(cause(queued, around({ nodes: [rabbit('up', hands(10, 5))] }))).toBe('window-full')
    expect(cause(queued, around({ nodes: [rabbit('blocked')] }))).toBe('waiting-in-broker')
    expect(cause(queued, around({ nodes: [rabbit('down'), idle('up')] }))).toBe('broker-down')
  })

  test('a conflict holds back what is not at the broker yet, and says what to do', () => {
    const conflict = 'It is classic: delete it'
    expect(waitingFor(waiting(), around({ nodes: [rabbit('up')], conflict }))).toEqual({
      cause: 'broker-blocked',
      detail: 'Nothing is handed to queue "emails". It is classic: delete it',
    })
    expect(cause(waiting(), around({ nodes: [rabbit('down')], conflict }))).toBe('broker-down')
    // The node has not told yet that it runs the consumer.
    expect(cause(waiting(), around({ nodes: [idle('up')], conflict }))).toBe('broker-blocked')
    expect(cause(waiting({ status: 'queued' }), around({ nodes: [idle('up')], conflict }))).toBe('no-consumer')
    expect(cause(waiting({ status: 'queued' }), around({ nodes: [rabbit('up')], conflict }))).toBe('waiting-in-broker')
  })

  test('where RabbitMQ does not let a node publish, the task says which permission is missing', () => {
    const refusing = (...refused: Destination[]) => around({ nodes: [rabbit('up'), { ...rabbit('up'), refused }] })
    const queue = refusing({ kind: 'queue', name: 'emails' })
    expect(waitingFor(waiting(), queue)).toEqual({
      cause: 'broker-blocked',
      detail: expect.stringMatching(
        /^Nothing is handed to queue "emails".*node node-1 .*"write" on the default exchange/,
      ),
    })
    expect(cause(waiting({ status: 'queued' }), queue)).toBe('waiting-in-broker')
    expect(cause(waiting({ exchange: 'orders' }), refusing({ kind: 'exchange', name: 'emails' }))).toBe('worker-busy')
    const exchange = refusing({ kind: 'exchange', name: 'orders' })
    for (const task of [waiting({ exchange: 'orders' }), waiting({ queue: 'exchange/orders' })])
      expect(waitingFor(task, exchange)).toEqual({
        cause: 'broker-blocked',
        detail: expect.stringMatching(/^Nothing is published to exchange "orders".*"write" on "orders"/),
      })
  })

  test('where RabbitMQ confirms nothing, the task says so, whichever node has seen it, and what to do', () => {
    const silent = (...unconfirmed: Destination[]) => {
      const publisher = idle('up')
      return around({
        nodes: [rabbit('up'), { ...publisher, link: publisher.link && { ...publisher.link, unconfirmed } }],
      })
    }
    for (const status of ['pending', 'queued'] as const)
      expect(waitingFor(waiting({ status }), silent({ kind: 'queue', name: 'emails' }))).toEqual({
        cause: 'broker-blocked',
        detail: expect.stringMatching(/^RabbitMQ confirms no messages to queue "emails".*delete the queue there/),
      })
    expect(cause(waiting(), silent({ kind: 'queue', name: 'others' }))).toBe('worker-busy')
    expect(cause(waiting({ exchange: 'orders' }), silent({ kind: 'exchange', name: 'emails' }))).toBe('worker-busy')
    for (const task of [waiting({ exchange: 'orders' }), waiting({ queue: 'exchange/orders', exchange: 'orders' })])
      expect(waitingFor(task, silent({ kind: 'exchange', name: 'orders' }))).toEqual({
        cause: 'broker-blocked',
        detail: expect.stringMatching(/^RabbitMQ confirms no messages to exchange "orders": has a queue behind it/),
      })
  })

  test('a queue whose tasks others take from RabbitMQ needs no consumer of Longshore', () => {
    const foreign = (status: BrokerState['status'], settlement: WaitingQueue['settlement'] = 'outcome') =>
      around({ consumers: [], nodes: [idle(status)], settlement })
    for (const settlement of ['outcome', 'confirm'] as const) {
      expect(cause(waiting({ status: 'queued' }), foreign('up', settlement))).toBe('waiting-in-broker')
      expect(cause(waiting(), foreign('up', settlement))).toBe('window-full')
      expect(cause(waiting(), foreign('down', settlement))).toBe('broker-down')
      expect(cause(waiting({ status: 'retrying', dueAt: LATER }), foreign('up', settlement))).toBe('retry-backoff')
      expect(cause(waiting(), around({ consumers: [], settlement }))).toBe('no-consumer')
    }
    expect(waitingFor(waiting(), around({ consumers: [], settlement: 'confirm' }))?.detail).toContain('AMQP_URL')
    const named = waitingFor(waiting({ status: 'queued' }), foreign('up'))
    expect(named?.detail).toContain('no consumer of Longshore takes from queue "emails"')
  })

  test('a fan-out waits for its publish, which needs the broker and no consumer', () => {
    const parent = waiting({ queue: 'exchange/orders' })
    expect(waitingFor(parent, around({ nodes: [idle('up')] }))).toEqual({
      cause: 'window-full',
      detail: 'Others are published to exchange "orders" before it',
    })
    expect(cause(parent, around({ nodes: [idle('down')] }))).toBe('broker-down')
    expect(cause({ ...parent, dueAt: LATER }, around({ nodes: [idle('up')] }))).toBe('due-later')
  })

  test('every cause but those of running tasks can be told of a waiting one, in the order of the list', () => {
    const told = [
      cause(waiting({ dueAt: LATER }), around()),
      cause(waiting(), around({ paused: true })),
      cause(waiting(), around({ consumers: [] })),
      cause(waiting(), around({ consumers: [{ paused: true, concurrency: 1 }] })),
      cause(waiting(), around({ nodes: [hands(10, 1)] })),
      cause(waiting(), around({ nodes: [hands(1, 1, LATER)] })),
      cause(waiting(), around({ nodes: [rabbit('down')] })),
      cause(waiting(), around({ nodes: [rabbit('blocked')] })),
      cause(waiting({ status: 'queued' }), around({ nodes: [rabbit('up')] })),
      cause(waiting({ status: 'retrying', dueAt: LATER }), around()),
      cause(waiting(), around()),
    ]
    expect(told).toEqual(CAUSES.filter((one) => one !== 'children' && one !== 'node-lost'))
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
