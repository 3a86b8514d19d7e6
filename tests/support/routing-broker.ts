import type { Broker, Message, PublishEnd } from '../../src/broker/broker.ts'
import { route } from '../../src/broker/routing.ts'
import type { BrokerState } from '../../src/task/ledger.ts'
import type { BindingOrder, ExchangeType } from '../../src/task/topology/topology.ts'

/** Queues, exchanges and bindings as a broker has them, in memory; the test binds, unbinds, and takes messages out. */
export function routingBroker() {
  const exchanges = new Map<string, ExchangeType>()
  const queues = new Map<string, Message[]>()
  let bindings: BindingOrder[] = []
  const listeners: ((queue: string | undefined) => void)[] = []
  let status: BrokerState['status'] = 'up'

  const targets = ({ exchange, routingKey }: Message): string[] => {
    if (exchange === '') return queues.has(routingKey) ? [routingKey] : []
    const type = exchanges.get(exchange)
    if (!type) throw new Error(`NOT_FOUND - no exchange "${exchange}"`)
    return route({ name: exchange, type }, routingKey, bindings)
  }
  const control = {
    exchanges,
    queues,
    bind(exchange: string, queue: string, routingKey = '') {
      if (!queues.has(queue)) queues.set(queue, [])
      bindings.push({ exchange, queue, routingKey })
    },
    /** With one routing key, or with all. */
    unbind(exchange: string, queue: string, routingKey?: string) {
      bindings = bindings.filter(
        (one) =>
          one.exchange !== exchange ||
          one.queue !== queue ||
          (routingKey !== undefined && one.routingKey !== routingKey),
      )
    },
    /** Routes a message as the broker does: to every queue, or nowhere. */
    deliver(message: Message): PublishEnd {
      const found = targets(message)
      for (const queue of found) queues.get(queue)?.push(message)
      return found.length === 0 ? 'returned' : 'confirmed'
    },
    status(next: BrokerState['status']) {
      status = next
      for (const listener of listeners) listener(undefined)
    },
  }
  const broker: Pick<Broker, 'kind' | 'state' | 'publish' | 'room' | 'onChange'> = {
    kind: 'rabbitmq',
    state: () => ({ status, since: '2026-01-01T00:00:00.000Z', reason: null, connections: [] }),
    publish: async (messages) => messages.map(control.deliver),
    room: () => (status === 'up' ? 1_000 : 0),
    onChange: (listener) => void listeners.push(listener),
  }
  return { broker, control }
}
