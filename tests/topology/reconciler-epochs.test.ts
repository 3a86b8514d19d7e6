import { describe, expect, test } from 'bun:test'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { brokerInMemory } from '../support/broker-in-memory.ts'
import { turns } from '../support/services.ts'
import { queue, reconciling, rows } from './reconciler-under-test.ts'

describe('PROTOCOL 11: a broker that has lost something', () => {
  test('tasks of a queue that is missing are sent again before it is made, so that a node may die in between', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control, clock } = reconciling(broker)
    reconciler.desire(rows([queue('a'), queue('b')]))
    await reconciler.start()
    await reconciler.idle()
    at.status('down')
    at.queues.delete('b')
    control.missing = []
    control.away = true
    at.status('up')
    await reconciler.idle()
    expect([at.queues.has('b'), reconciler.isReady('b')]).toEqual([false, false])
    control.away = false
    clock.advance(500)
    await reconciler.idle()
    expect([control.missing, at.queues.has('b'), reconciler.isReady('b')]).toEqual([[['b']], true, true])
  })

  test('a queue that lost a message is looked for, and what was in it is sent again', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control, clock } = reconciling(broker)
    reconciler.desire(rows([queue('a'), queue('b')]))
    await reconciler.start()
    await reconciler.idle()
    control.missing = []
    at.queues.delete('a')
    for (let message = 0; message < 5; message++) reconciler.recheck('a')
    reconciler.recheck('unknown')
    expect([reconciler.isReady('a'), reconciler.isReady('b')]).toEqual([false, true])
    await turns()
    // Its consumers are told first.
    expect([control.missing, at.queues.has('a')]).toEqual([[['a']], false])
    clock.advance(250)
    await reconciler.idle()
    expect([control.missing, at.declarations.length]).toEqual([[['a']], 2])
    expect(reconciler.isReady('a')).toBe(true)
    expect(control.ready).toEqual([['a', 'b'], ['a']])
  })

  test('a broker without the marker of the epoch begins another one, once, before anything is declared', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control, ledger, clock } = reconciling(broker)
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await reconciler.idle()
    expect([control.begun, at.epochs]).toEqual([[undefined], new Set(['after-nothing'])])
    for (let time = 0; time < 2; time++) {
      at.status('down')
      at.status('up')
      await reconciler.idle()
    }
    expect(control.begun).toEqual([undefined])

    at.status('down')
    at.wipe()
    // Somebody else is quicker: only the marker tells.
    at.queues.set('a', { name: 'a', type: 'quorum', maxPriority: null, deadLetter: true })
    at.calls.length = 0
    at.status('up')
    await turns()
    clock.advance(250)
    await reconciler.idle()
    expect([control.begun, ledger.epoch]).toEqual([[undefined, 'after-nothing'], 'after-after-nothing'])
    expect([at.calls, at.epochs]).toEqual([['declare', 'declare', 'declare', 'make'], new Set(['after-after-nothing'])])
  })

  test('an epoch that another node has begun and is about to mark is waited for', async () => {
    const { broker, control: at } = brokerInMemory()
    const { reconciler, control, clock } = reconciling(broker, { epoch: 'new' })
    reconciler.desire(rows([queue('a')]))
    await reconciler.start()
    await turns()
    expect(reconciler.isReady('a')).toBe(false)
    at.epochs.add('new')
    clock.advance(250)
    await reconciler.idle()
    expect([reconciler.isReady('a'), control.begun]).toEqual([true, []])
  })

  test('another broker, and the way back, are other epochs', async () => {
    const one = brokerInMemory()
    const other = brokerInMemory()
    const ledger = { epoch: undefined as string | undefined }
    const begun: unknown[] = []
    for (const { broker } of [one, other, one, one]) {
      const { reconciler, control, clock } = reconciling(broker, ledger)
      await reconciler.start()
      await turns()
      clock.advance(250)
      await reconciler.idle()
      await reconciler.stop()
      begun.push(control.begun.length)
    }
    expect(begun).toEqual([1, 1, 1, 0])
  })

  test('of two nodes that see a wiped broker one begins the epoch, and both go by it', async () => {
    const { broker, control: at } = brokerInMemory()
    const ledger = { epoch: 'old' as string | undefined }
    const nodes = [reconciling(broker, ledger), reconciling(broker, ledger)]
    for (const { reconciler } of nodes) reconciler.desire(rows([queue('a')]))
    await Promise.all(nodes.map(({ reconciler }) => reconciler.start()))
    await turns()
    for (const { clock } of nodes) clock.advance(250)
    await Promise.all(nodes.map(({ reconciler }) => reconciler.idle()))
    expect(ledger.epoch).toBe('after-old')
    expect(at.epochs).toEqual(new Set(['after-old']))
  })

  test('one inside the process begins none when its node starts again: nothing was ever left in it', async () => {
    const { reconciler, control, ledger } = reconciling(createInProcessBroker())
    await reconciler.start()
    await reconciler.idle()
    const again = reconciling(createInProcessBroker(), ledger)
    again.reconciler.desire(rows([queue('a')]))
    await again.reconciler.start()
    await again.reconciler.idle()
    expect([control.begun, again.control.begun, again.reconciler.isReady('a')]).toEqual([[undefined], [], true])
  })
})
