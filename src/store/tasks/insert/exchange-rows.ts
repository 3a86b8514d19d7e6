import type { BindingOrder, ExchangeType } from '../../../task/topology/topology.ts'
import { prepared, type Queryable } from '../../database/statement.ts'

/** An exchange as its rows are at one moment. */
export interface ExchangeRows {
  name: string
  type: ExchangeType
  /** Those that can take one of the routing keys that were asked for. */
  bindings: BindingOrder[]
  /** Another one whenever a binding came or went, or the exchange was made anew. */
  version: string
}

/** SQL for the version of the exchange `x`. */
export const EXCHANGE_VERSION = `x.type || ' ' || x.created_at || ' ' || (
  select count(*) || ' ' || coalesce(max(b.created_at)::text, '') from bindings b where b.exchange = x.name)`

/** What is not asked for is not read: an exchange may have very many bindings. */
const EXCHANGES = `
  select x.name, x.type, ${EXCHANGE_VERSION} as version, (
      select coalesce(jsonb_agg(jsonb_build_object('exchange', b.exchange, 'queue', b.queue, 'routingKey', b.routing_key)), '[]')
      from bindings b where b.exchange = x.name
        and (x.type = 'fanout' or b.routing_key = any($2::text[]) or (x.type = 'topic' and b.routing_key ~ '[*#]'))
    ) as bindings
  from exchanges x where x.name = any($1::text[])`

/** Those of these exchanges that exist, by name, with what bindings of theirs these routing keys can meet. */
export async function readExchanges(
  tx: Queryable,
  exchanges: Iterable<string>,
  routingKeys: Iterable<string>,
): Promise<Map<string, ExchangeRows>> {
  const rows = await prepared<ExchangeRows>(tx, 'read-exchanges', EXCHANGES, [
    [...new Set(exchanges)],
    [...new Set(routingKeys)],
  ])
  return new Map(rows.map((row) => [row.name, row]))
}

/** The exchange's present version; undefined when it is gone. */
export async function exchangeVersion(tx: Queryable, exchange: string): Promise<string | undefined> {
  const rows = await prepared<{ version: string }>(
    tx,
    'exchange-version',
    `select ${EXCHANGE_VERSION} as version from exchanges x where x.name = $1`,
    [exchange],
  )
  return rows[0]?.version
}
