import {
  type Broker,
  type BrokerQueue,
  type BrokerTopology,
  BrokerUnavailable,
  type Declared,
} from '../../src/broker/broker.ts'
import type { BrokerState } from '../../src/task/ledger.ts'

/**
 * What is asked of a broker about its topology, kept in memory: the test cuts its link, wipes it, and lets others use its
 * queues.
 */
export function brokerInMemory() {
  const queues = new Map<string, BrokerQueue>()
  const exchanges = new Map<string, string>()
  const listeners: ((queue: string | undefined) => void)[] = []
  let status: BrokerState['status'] = 'up'
  const check = () => {
    if (status === 'down') throw new BrokerUnavailable('the broker refuses connections')
  }
  const control = {
    queues,
    exchanges,
    /** Epochs whose mark it has. */
    epochs: new Set<string>(),
    /** Messages and consumers of queues, by queue. */
    messages: new Map<string, number>(),
    consumers: new Map<string, number>(),
    /** What was declared, one after another. */
    declarations: [] as BrokerTopology[],
    /** What was asked, in its order. */
    calls: [] as string[],
    /** Declarations wait for this. */
    hold: undefined as Promise<void> | undefined,
    refuses: undefined as string | undefined,
    /** Runs before anything is taken away. */
    beforeRemove: undefined as (() => Promise<void>) | undefined,
    status(next: BrokerState['status']) {
      status = next
      for (const listener of listeners) listener(undefined)
    },
    wipe() {
      queues.clear()
      exchanges.clear()
      control.epochs.clear()
    },
  }
  const broker: Pick<Broker, 'kind' | 'declare' | 'inspect' | 'remove' | 'state' | 'onChange'> = {
    kind: 'rabbitmq',
    state: () => ({ status, since: '2026-01-01T00:00:00.000Z', reason: null, connections: [] }),
    onChange: (listener) => void listeners.push(listener),
    async inspect(name, { purge = false } = {}) {
      control.calls.push(`${purge ? 'purge' : 'inspect'} ${name}`)
      check()
      if (purge) control.messages.delete(name)
      if (!queues.has(name)) return undefined
      return { messages: control.messages.get(name) ?? 0, consumers: control.consumers.get(name) ?? 0 }
    },
    async remove(removal) {
      const name = removal.kind === 'binding' ? JSON.stringify(removal) : `${removal.kind} ${removal.name}`
      control.calls.push(`remove ${name}`)
      check()
      await control.beforeRemove?.()
      if (removal.kind === 'exchange') exchanges.delete(removal.name)
      if (removal.kind !== 'queue') return 'removed'
      if (removal.ifEmpty && control.messages.get(removal.name)) return 'not-empty'
      if (removal.ifUnused && control.consumers.get(removal.name)) return 'in-use'
      queues.delete(removal.name)
      control.messages.delete(removal.name)
      return 'removed'
    },
    async declare(topology, beforeMaking) {
      control.calls.push('declare')
      control.declarations.push(topology)
      await control.hold
      check()
      if (control.refuses) throw new BrokerUnavailable(control.refuses)
      const declared: Declared = {
        missing: topology.queues.flatMap(({ name }) => (queues.has(name) ? [] : [name])),
        conflicts: [],
        wiped: topology.epoch !== undefined && !control.epochs.has(topology.epoch),
      }
      await beforeMaking?.(declared)
      control.calls.push('make')
      if (topology.epoch !== undefined) control.epochs.add(topology.epoch)
      for (const queue of topology.queues) {
        const present = queues.get(queue.name) ?? queue
        queues.set(queue.name, present)
        if (present.type !== queue.type) {
          const difference = `it is ${present.type}, not ${queue.type}`
          declared.conflicts.push({ kind: 'queue', name: queue.name, difference })
        }
      }
      for (const { name, type } of topology.exchanges) {
        const present = exchanges.get(name) ?? type
        exchanges.set(name, present)
        if (present !== type)
          declared.conflicts.push({ kind: 'exchange', name, difference: `it is ${present}, not ${type}` })
      }
      return declared
    },
  }
  return { broker, control }
}
