import type { CompatDeps } from '../../api/compat/compat.ts'
import type { Config } from '../../config.ts'
import { messageOf, Problem } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import {
  CLIENT_TRANSACTIONS,
  insertClientTransaction,
  listClientTransactions,
} from '../../store/client-transactions.ts'
import { type DataTable, ensureDataTable } from '../../store/data-table.ts'
import type { Database } from '../../store/database/database.ts'
import { ensureTopology } from '../../store/topology/ensure.ts'
import type { Node } from '../node.ts'

export interface OlderSystemsDeps
  extends Pick<
    CompatDeps,
    | 'submitter'
    | 'checkUrl'
    | 'orderApi'
    | 'managementConnections'
    | 'topologyChanged'
    | 'removeQueue'
    | 'cancelWaiting'
    | 'reportStatus'
  > {
  config: Pick<Config, 'tableDatabaseUrl'>
  log: Logger
  database: Database
  node: Node
  /** Of the tables that table targets write. */
  schema: string
}

/** What the routes of the older systems need. They make what they use: queues, exchanges, consumers, tables. */
export function olderSystems({ config, log, database, node, schema, ...given }: OlderSystemsDeps): CompatDeps {
  const { db, pool } = database
  const { broker, registry, notifications, observed, sourcing } = node
  const place = { url: config.tableDatabaseUrl?.reveal(), schema }
  async function ensureTable(table: DataTable): Promise<void> {
    try {
      await ensureDataTable(pool, place, table)
    } catch (error) {
      log.warn({ event: 'table-not-made', table: table.name, error: messageOf(error) })
      throw new Problem('database-unavailable', `The table "${table.name}" cannot be made; the log says why`)
    }
  }
  return {
    ...given,
    db,
    pool,
    log,
    tracing: observed.tracing,
    broker: broker.kind,
    inspectQueue: broker.kind === 'rabbitmq' ? (queue) => broker.inspect(queue) : undefined,
    submitToExchange: (task) => given.submitter.submit(task),
    async ensureTopology(wanted) {
      if (!(await ensureTopology(db, wanted))) return
      await registry.refresh()
      notifications.send({ kind: 'topology' })
    },
    ensureTable,
    sources: sourcing.sources,
    ensureTransactions: () => ensureTable(CLIENT_TRANSACTIONS),
    listTransactions: (limit, after) => listClientTransactions(pool, place, limit, after),
    insertTransaction: (row) => insertClientTransaction(pool, place, row),
  }
}
