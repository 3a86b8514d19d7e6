import type { BindingOrder, ExchangeType } from '../task/topology/topology.ts'

/*
 * What RabbitMQ does with a message that is published to an exchange, as pure functions
 * (https://www.rabbitmq.com/tutorials/amqp-concepts#exchanges).
 */

/** Whether a binding takes a message with this routing key. */
export function routes(type: ExchangeType, bindingKey: string, routingKey: string): boolean {
  switch (type) {
    case 'fanout':
      return true
    case 'direct':
      return bindingKey === routingKey
    case 'topic':
      return matches(wordsOf(bindingKey), wordsOf(routingKey))
    default:
      return type satisfies never
  }
}

/** The queues that get a message which is published to `exchange`: each once, sorted. */
export function route(
  exchange: { name: string; type: ExchangeType },
  routingKey: string,
  bindings: readonly BindingOrder[],
): string[] {
  const queues = bindings
    .filter((binding) => binding.exchange === exchange.name && routes(exchange.type, binding.routingKey, routingKey))
    .map(({ queue }) => queue)
  return [...new Set(queues)].sort()
}

/** An empty key has no words; between two dots stands an empty one. */
function wordsOf(key: string): string[] {
  return key === '' ? [] : key.split('.')
}

/** `*` is one word, `#` any number of them. Each word of the key is looked at once a word of the pattern. */
function matches(pattern: string[], words: string[]): boolean {
  /** At `i`: whether the pattern so far takes the first `i` words. */
  let taken = words.map(() => false)
  taken.unshift(true)
  for (const part of pattern) {
    const next = taken.map(() => false)
    for (const [i, before] of taken.entries()) {
      if (part === '#') next[i] = before || (i > 0 && next[i - 1] === true)
      else if (i > 0) next[i] = taken[i - 1] === true && (part === '*' || part === words[i - 1])
    }
    taken = next
  }
  return taken.at(-1) === true
}
