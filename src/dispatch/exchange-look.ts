import { route } from '../broker/routing.ts'
import type { ExchangeRows } from '../store/tasks/insert/exchange-rows.ts'

export interface ExchangeLookDeps {
  /** The exchange by its rows now, with what bindings these routing keys can meet; undefined when it is gone. */
  readExchange(exchange: string, routingKeys: string[]): Promise<ExchangeRows | undefined>
  /** Another one whenever one of its bindings came or went. */
  exchangeVersion(exchange: string): Promise<string | undefined>
  /** The version of the exchange that the broker has by what this node declared; undefined while it has not declared it, or may not publish to it. */
  declaredVersion(exchange: string): string | undefined
  /** Whether the broker has the queue as it should be: to one that it has otherwise nothing is bound. */
  isReady(queue: string): boolean
}

/** Where a message that is published to an exchange will come. */
export interface ExchangeLook {
  /** As of the look: while it stays the same, `reaches` holds. */
  version: string
  /**
   * Whether the queue surely gets a message with this key: the rows bind it, they are the very ones that this node has
   * declared, and the queue is not in conflict. A binding's row is taken away before the broker's binding, so what the rows have was not taken away since.
   */
  reaches(queue: string, routingKey: string): boolean
}

/** Looks where messages with these keys would come now. `gone`: there is no such exchange; `undeclared`: not to be published to yet. */
export async function lookAtExchange(
  { readExchange, declaredVersion, isReady }: ExchangeLookDeps,
  exchange: string,
  routingKeys: string[],
): Promise<ExchangeLook | 'gone' | 'undeclared'> {
  const rows = await readExchange(exchange, [...new Set(routingKeys)])
  if (!rows) return 'gone'
  const declared = declaredVersion(exchange)
  if (declared === undefined) return 'undeclared'
  const reached = new Map<string, Set<string>>()
  if (declared === rows.version)
    for (const key of new Set(routingKeys)) reached.set(key, new Set(route(rows, key, rows.bindings)))
  return { version: rows.version, reaches: (queue, key) => (reached.get(key)?.has(queue) ?? false) && isReady(queue) }
}
