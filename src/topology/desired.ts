import type { BrokerQueue, BrokerTopology, Declared } from '../broker/broker.ts'
import type { Topology } from '../task/topology/topology.ts'

/** What the broker should have, in an order of its own: equal rows give equal text. */
export function brokerTopology({ queues, exchanges, bindings }: Omit<Topology, 'consumers'>): BrokerTopology {
  return {
    queues: queues
      .map(({ name, type, maxPriority, deadLetter }): BrokerQueue => ({ name, type, maxPriority, deadLetter }))
      .sort(by(({ name }) => name)),
    // A binding that went and came back is to be declared again: the version tells, where nothing else differs.
    exchanges: exchanges.map(({ name, type, version }) => ({ name, type, version })).sort(by(({ name }) => name)),
    bindings: bindings
      .map(({ exchange, queue, routingKey }) => ({ exchange, queue, routingKey }))
      .sort(by(({ exchange, queue, routingKey }) => JSON.stringify([exchange, queue, routingKey]))),
  }
}

/** Each queue and exchange, with what belongs to it, as a text: it is as declared while that text is. */
export function partsOf({ queues, exchanges, bindings }: BrokerTopology): { queues: Parts; exchanges: Parts } {
  const bound = Map.groupBy(bindings, ({ exchange }) => exchange)
  return {
    queues: new Map(queues.map((queue) => [queue.name, JSON.stringify(queue)])),
    exchanges: new Map(
      exchanges.map((exchange) => [exchange.name, JSON.stringify([exchange, bound.get(exchange.name) ?? []])]),
    ),
  }
}

export type Parts = ReadonlyMap<string, string>

/** What a queue or exchange shows while the broker has it otherwise: the difference, and what to do. */
export function conflictText({ kind, difference }: Declared['conflicts'][number]): string {
  if (difference.startsWith('ACCESS_REFUSED'))
    return `RabbitMQ does not let the user of AMQP_URL make this ${kind}: ${difference}. Give that user all rights on the vhost (rabbitmqctl set_permissions); it is tried again every 15 seconds.`
  const found = `The broker has this ${kind} otherwise: ${difference.replace(/\.$/, '')}.`
  return kind === 'queue'
    ? `${found} It stands still until both agree: put the policy back that the broker has, or delete the queue at the broker; it is then made anew, and the tasks that were in it are sent again.`
    : `${found} Delete it here and make it with the type that the broker has, or delete it at the broker; it is then made anew.`
}

function by<T>(keyOf: (item: T) => string): (a: T, b: T) => number {
  return (a, b) => {
    const [left, right] = [keyOf(a), keyOf(b)]
    return left < right ? -1 : left > right ? 1 : 0
  }
}
