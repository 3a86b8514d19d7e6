import { createTableTarget } from '../../src/targets/table/target.ts'
import type { TableSettings } from '../../src/task/attempt/thread-messages.ts'
import type { Execution } from '../../src/task/executor.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import type { TableTarget } from '../../src/task/target/target.ts'
import { anExecution } from '../execution/executor.conformance.ts'
import { type TestDatabase, testDatabase } from '../support/database.ts'
import { targetContext } from '../support/target-context.ts'

export type TableRun = (payload: string, over?: Partial<Execution>) => Promise<Outcome>

/** A database with tables of its own, and targets that write to it. */
export interface TablesUnderTest {
  readonly testing: TestDatabase
  readonly settings: TableSettings
  query<R extends object>(text: string, values?: unknown[]): Promise<R[]>
  /** Attempts at a target in a thread of its own, as it were: with its own connections. */
  target(target: Omit<TableTarget, 'type'>, settings?: Partial<TableSettings>): TableRun
  end(): Promise<void>
}

/** The nodes of other tests may have all connections of the server: an attempt that failed for that does not count. */
export async function unlessCrowded(attempt: () => Promise<Outcome>): Promise<Outcome> {
  for (;;) {
    const outcome = await attempt()
    if (outcome.kind !== 'failed' || !/too many clients|connection slots/.test(outcome.error)) return outcome
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
}

export async function tablesUnderTest(): Promise<TablesUnderTest> {
  const testing = await testDatabase('server')
  const settings: TableSettings = { connection: testing.connection, schema: 'data', onlySchema: true }
  const opened: { close(): Promise<void> }[] = []
  await testing.database.pool.query('create schema data')
  return {
    testing,
    settings,
    query: async <R extends object>(text: string, values: unknown[] = []) =>
      (await testing.database.pool.query<R>(text, values)).rows,
    target(target, over = {}) {
      const run = createTableTarget({ tables: { ...settings, ...over } })
      opened.push(run)
      return (payload, execution = {}) =>
        unlessCrowded(() =>
          run(anExecution({ payload, target: { type: 'table', ...target }, ...execution }), targetContext()),
        )
    },
    async end() {
      await Promise.all(opened.map((one) => one.close()))
      await testing.drop()
    },
  }
}
