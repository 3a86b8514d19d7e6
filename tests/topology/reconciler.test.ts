import { describe, expect, test } from 'bun:test'
import { BrokerUnavailable } from '../../src/broker/broker.ts'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { brokerInMemory } from '../support/broker-in-memory.ts'
import { turns } from '../support/services.ts'
import { names, queue, reconciling, rows } from './reconciler-under-test.ts'

describe('the reconciler', () => {
  test('declares at its start what the rows say, and only then the queues are ready', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control } = reconciling(broker)
    reconciler.desire(
      rows([queue('b'), queue('a', { type: 'classic', maxPriority: 5, deadLetter: false })], {
        exchanges: [{ name: 'x', type: 'topic', conflict: null }],
        bindings: [{ exchange: 'x', queue: 'a', routingKey: '#' }],
      }),
    )
    expect([at.calls, reconciler.isReady('a')]).toEqual([[], false])
    await reconciler.start()
    await reconciler.idle()
    expect(at.declarations).toEqual([
      {
        queues: [
          { name: 'a', type: 'classic', maxPriority: 5, deadLetter: false },
          { name: 'b', type: 'quorum', maxPriority: null, deadLetter: true },
        ],
        epoch: 'after-nothing',
        exchanges: [{ name: 'x', type: 'topic' }],
        bindings: [{ exchange: 'x', queue: 'a', routingKey: '#' }],
      },
    ])
    expect(['a', 'b', 'c'].map(reconciler.isReady)).toEqual([true, true, false])
    expect(['x', 'y'].map(reconciler.isExchangeReady)).toEqual([true, false])
    expect(control.ready).toEqual([['a', 'b']])
  })

  test('declares nothing when nothing has changed, whatever the order of the rows, their pauses and policies', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control } = reconciling(broker)
    reconciler.desire(rows([queue('a'), queue('b')]))
    await reconciler.start()
    await reconciler.idle()
    reconciler.desire(rows([queue('b', { paused: true, window: 7 }), queue('a', { conflict: 'old' })]))
    at.status('blocked')
    at.status('up')
    await reconciler.idle()
    expect(at.declarations).toHaveLength(1)
    expect(reconciler.isReady('a')).toBe(true)

    reconciler.desire(rows([queue('a'), queue('b'), queue('c')]))
    expect([reconciler.isReady('a'), reconciler.isReady('c')]).toEqual([true, false])
    await reconciler.idle()
    expect([at.declarations.length, control.ready]).toEqual([2, [['a', 'b'], ['c']]])
  })

  test('an exchange is ready when all its bindings are declared', async () => {
    const { broker } = brokerInMemory()
    const { reconciler } = reconciling(broker)
    const exchanges = [{ name: 'x', type: 'fanout', conflict: null } as const]
    reconciler.desire(rows([queue('a')], { exchanges }))
    await reconciler.start()
    await reconciler.idle()
    expect(reconciler.isExchangeReady('x')).toBe(true)
    reconciler.desire(rows([queue('a')], { exchanges, bindings: [{ exchange: 'x', queue: 'a', routingKey: '' }] }))
    expect(reconciler.isExchangeReady('x')).toBe(false)
    await reconciler.idle()
    expect(reconciler.isExchangeReady('x')).toBe(true)
  })

  test('of changes that come during a declaration the last one wins, in one more', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler } = reconciling(broker)
    let release = () => {}
    at.hold = new Promise((resolve) => {
      release = resolve
    })
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await turns()
    for (const name of ['b', 'c', 'd']) reconciler.desire(rows([queue('a'), queue(name)]))
    await turns()
    expect(at.declarations).toHaveLength(1)
    release()
    await reconciler.idle()
    expect(at.declarations.map(names)).toEqual([['a'], ['a', 'd']])
    expect(['a', 'b', 'c', 'd'].map(reconciler.isReady)).toEqual([true, false, false, true])
  })

  test('a lost connection makes nothing ready, and on the new one all is declared again', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control } = reconciling(broker)
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    at.status('down')
    expect(reconciler.isReady('a')).toBe(false)
    at.status('up')
    await reconciler.idle()
    expect(at.declarations).toHaveLength(2)
    expect([reconciler.isReady('a'), control.missing, control.ready]).toEqual([true, [['a']], [['a'], ['a']]])
  })

  test('a connection that breaks during the declaration makes nothing ready', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler } = reconciling(broker)
    let release = () => {}
    at.hold = new Promise((resolve) => {
      release = resolve
    })
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await turns()
    at.status('down')
    at.status('up')
    release()
    await reconciler.idle()
    expect(at.declarations).toHaveLength(2)
    expect(reconciler.isReady('a')).toBe(true)
  })

  test('a broker that is down is waited for without a timer; one that refuses is asked again after longer and longer', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, clock } = reconciling(broker)
    at.status('down')
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    expect([at.declarations.length, clock.timers]).toEqual([0, 0])
    at.refuses = 'ACCESS_REFUSED'
    at.status('up')
    await reconciler.idle()
    for (const ms of [500, 1_000, 2_000]) {
      const before = at.declarations.length
      clock.advance(ms - 1)
      await reconciler.idle()
      expect(at.declarations).toHaveLength(before)
      clock.advance(1)
      await reconciler.idle()
      expect(at.declarations).toHaveLength(before + 1)
    }
    at.refuses = undefined
    clock.advance(4_000)
    await reconciler.idle()
    expect([reconciler.isReady('a'), clock.timers]).toEqual([true, 1])
  })

  test('a conflict is shown with what to do, stops that queue alone, and is looked at again until it is mended', async () => {
    const { broker, control: at } = brokerInMemory()
    at.queues.set('a', { name: 'a', type: 'classic', maxPriority: null, deadLetter: true })
    at.exchanges.set('x', 'direct')
    const { reconciler, control, clock } = reconciling(broker)
    const exchanges = [{ name: 'x', type: 'topic', conflict: null } as const]
    reconciler.desire(rows([queue('a'), queue('b')], { exchanges }))
    await reconciler.start()
    await reconciler.idle()
    expect(control.conflicts).toEqual([
      { kind: 'queue', name: 'a', text: expect.stringContaining('it is classic, not quorum') },
      { kind: 'exchange', name: 'x', text: expect.stringContaining('it is direct, not topic') },
    ])
    for (const { text } of control.conflicts) expect(text).toContain('delete')
    expect([reconciler.isReady('a'), reconciler.isReady('b'), reconciler.isExchangeReady('x')]).toEqual([
      false,
      true,
      false,
    ])
    clock.advance(15_000)
    await reconciler.idle()
    expect([at.declarations.length, reconciler.isReady('a')]).toEqual([2, false])

    at.queues.delete('a')
    at.exchanges.delete('x')
    clock.advance(15_000)
    await reconciler.idle()
    expect([reconciler.isReady('a'), reconciler.isExchangeReady('x'), control.conflicts]).toEqual([true, true, []])
    expect([control.missing.at(-1), control.ready.at(-1), clock.timers]).toEqual([['a'], ['a', 'b'], 1])
  })

  test('a conflict that is over is taken from the rows by any node: the one that found it may be gone', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control, clock } = reconciling(broker)
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    control.conflicts = [{ kind: 'queue', name: 'a', text: 'of another node' }]
    for (let read = 0; read < 2; read++) {
      reconciler.desire(rows([queue('a', { conflict: 'of another node' })]))
      await reconciler.idle()
      expect([at.declarations.length, control.conflicts.length]).toEqual([1, 1])
      clock.advance(7_500)
    }
    await reconciler.idle()
    expect([at.declarations.length, control.conflicts]).toEqual([2, []])
    reconciler.desire(rows([queue('a')]))
    clock.advance(299_999)
    await reconciler.idle()
    expect(at.declarations).toHaveLength(3)
  })

  test('what somebody has taken away at the broker is there again after some minutes', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, clock } = reconciling(broker)
    reconciler.desire(rows([queue('a')], { exchanges: [{ name: 'x', type: 'topic', conflict: null }] }))
    await reconciler.start()
    await reconciler.idle()
    at.exchanges.delete('x')
    clock.advance(299_999)
    await reconciler.idle()
    expect(at.declarations).toHaveLength(1)
    clock.advance(1)
    await reconciler.idle()
    expect([at.declarations.length, at.exchanges.get('x')]).toEqual([2, 'topic'])
    await reconciler.stop()
    expect(clock.timers).toBe(0)
  })

  test('a policy that is put back resolves its conflict at once', async () => {
    const { broker, control: at } = brokerInMemory()
    at.queues.set('a', { name: 'a', type: 'classic', maxPriority: null, deadLetter: true })
    const { reconciler, control } = reconciling(broker)
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    expect(control.conflicts).toHaveLength(1)
    reconciler.desire(rows([queue('a', { type: 'classic' })]))
    await reconciler.idle()
    expect([control.conflicts, reconciler.isReady('a')]).toEqual([[], true])
  })

  test('what this node has made and nobody desires any more is taken away, bindings first; what others use stays', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, clock } = reconciling(broker)
    const exchanges = [{ name: 'x', type: 'fanout', conflict: null } as const]
    const bindings = [{ exchange: 'x', queue: 'b', routingKey: '' }]
    reconciler.desire(rows([queue('a'), queue('b'), queue('c')], { exchanges, bindings }))
    await reconciler.start()
    await reconciler.idle()
    at.queues.set('foreign', { name: 'foreign', type: 'quorum', maxPriority: null, deadLetter: true })
    at.messages.set('b', 1)
    at.consumers.set('c', 1)
    at.calls.length = 0
    reconciler.desire(rows([queue('a')]))
    await reconciler.idle()
    expect(at.calls).toEqual([
      ...['declare', 'make'],
      'remove {"kind":"binding","exchange":"x","queue":"b","routingKey":""}',
      ...['remove exchange x', 'remove queue b', 'remove queue c'],
    ])
    expect([...at.queues.keys()]).toEqual(['a', 'b', 'c', 'foreign'])
    // Our own consumer needs a moment to leave.
    at.consumers.delete('c')
    clock.advance(15_000)
    await reconciler.idle()
    expect([[...at.queues.keys()], clock.timers]).toEqual([['a', 'b', 'foreign'], 1])
  })

  test('a removal that is cut off is repeated, and what conflicts is left to whom it belongs', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler } = reconciling(broker)
    at.exchanges.set('x', 'direct')
    const exchanges = [{ name: 'x', type: 'topic', conflict: null } as const]
    reconciler.desire(rows([queue('a'), queue('b')], { exchanges }))
    await reconciler.start()
    await reconciler.idle()
    const { remove } = broker
    broker.remove = () => Promise.reject(new BrokerUnavailable('the link broke'))
    reconciler.desire(rows([queue('a')]))
    await reconciler.idle()
    expect([at.queues.has('b'), reconciler.isReady('a')]).toEqual([true, true])
    broker.remove = remove
    at.status('down')
    at.status('up')
    await reconciler.idle()
    expect([at.queues.has('b'), at.exchanges.has('x'), reconciler.isReady('a')]).toEqual([false, true, true])
  })

  test('stop ends it in the middle of a failure, and nothing is declared after it', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, clock } = reconciling(broker)
    at.refuses = 'NOT_ALLOWED'
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    await reconciler.stop()
    const { length } = at.declarations
    reconciler.desire(rows([queue('b')]))
    at.status('down')
    at.status('up')
    clock.advance(60_000)
    await reconciler.idle()
    expect([at.declarations.length, clock.timers]).toEqual([length, 0])
  })

  test('the broker inside the process is declared to as well', async () => {
    const { reconciler, control } = reconciling(createInProcessBroker())
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    expect([reconciler.isReady('a'), control.missing, control.conflicts]).toEqual([true, [['a']], []])
  })
})
