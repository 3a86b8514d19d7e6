import type { Pool } from 'pg'
import { memberSpans } from '../../task/json/text.ts'
import { APPLIED_TABLE, MAKING_LOCK, type TableName } from '../../task/target/names.ts'
import type { Row } from './row.ts'

/** A name as an SQL identifier. */
export function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`
}

export function qualified({ schema, table }: TableName): string {
  return `${quoted(schema)}.${quoted(table)}`
}

/** The notes of the schema: which tasks' rows are in. */
export function appliedTable(schema: string): string {
  return qualified({ schema, table: APPLIED_TABLE })
}

/** What an operator can run where Longshore may not. */
export function createApplied(schema: string): string {
  return `create table if not exists ${appliedTable(schema)} (task_id uuid primary key, applied_at timestamptz not null default now())`
}

/** Makes the notes of a schema, and with `withSchema` the schema, unless they are there. */
export async function ensureApplied(pool: Pool, schema: string, withSchema: boolean): Promise<void> {
  const { rows } = await pool.query<{ there: boolean }>('select to_regclass($1) is not null as there', [
    appliedTable(schema),
  ])
  if (rows[0]?.there) return
  const index = quoted(`${APPLIED_TABLE}_at`)
  // Without parameters, so that all of it is one transaction in one round trip.
  await pool.query(`select pg_advisory_xact_lock(${MAKING_LOCK});
    ${withSchema ? `create schema if not exists ${quoted(schema)};` : ''}
    ${createApplied(schema)};
    create index if not exists ${index} on ${appliedTable(schema)} (applied_at)`)
}

/**
 * Inserts the rows of those tasks whose rows are not in yet, and notes them, in one statement: both or neither. All
 * rows fill the same columns. Postgres reads the values from JSON text, so a number is what its digits say.
 */
export async function insertRows(pool: Pool, name: TableName, rows: readonly Row[]): Promise<void> {
  const columns = (rows[0] as Row).columns.map(quoted)
  // In order, as rows of one statement are touched everywhere; a task that is there twice has one row.
  const sorted = [...new Map(rows.map((row) => [row.id, row])).values()].sort((a, b) => (a.id < b.id ? -1 : 1))
  await pool.query(
    `with fresh as (
       insert into ${appliedTable(name.schema)} (task_id) select id from unnest($1::uuid[]) as given(id)
       on conflict do nothing returning task_id
     )
     insert into ${qualified(name)} (${columns.join()})
     select ${columns.map((column) => `r.${column}`).join()}
     from unnest($1::uuid[], $2::text[]) as given(id, record)
       join fresh on fresh.task_id = given.id
       cross join lateral json_populate_record(null::${qualified(name)}, given.record::json) as r`,
    [sorted.map(({ id }) => id), sorted.map(({ record }) => record)],
  )
}

/** The first column whose value its type refuses; undefined when it is something else that is refused. */
export async function findRefusedColumn(pool: Pool, name: TableName, row: Row): Promise<string | undefined> {
  const members = memberSpans(row.record)
  if (!members?.ok) return undefined
  for (const column of row.columns) {
    const span = members.members.get(column)
    const record = `{${JSON.stringify(column)}:${span ? row.record.slice(...span) : 'null'}}`
    const read = pool.query(`select json_populate_record(null::${qualified(name)}, $1::json)`, [record])
    if (await read.then(() => false).catch(() => true)) return column
  }
  return undefined
}

/** Columns that the table does not have. */
export async function missingColumns(pool: Pool, name: TableName, columns: readonly string[]): Promise<string[]> {
  const { rows } = await pool.query<{ name: string }>(
    `select given.name from unnest($2::text[]) as given(name)
     where not exists (select from pg_attribute a
       where a.attrelid = $1::regclass and a.attname = given.name and a.attnum > 0 and not a.attisdropped)`,
    [qualified(name), columns],
  )
  return rows.map((row) => row.name)
}

/** Forgets up to `limit` tasks that were noted more than `days` days ago; gives how many. */
export async function pruneApplied(pool: Pool, schema: string, days: number, limit: number): Promise<number> {
  const { rowCount } = await pool.query(
    `delete from ${appliedTable(schema)} where task_id in (
       select task_id from ${appliedTable(schema)} where applied_at < now() - $1 * interval '1 day'
       order by applied_at limit $2 for update skip locked)`,
    [days, limit],
  )
  return rowCount ?? 0
}
