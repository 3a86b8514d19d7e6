import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { createTableTarget } from '../../src/targets/table/target.ts'
import { createTableWriter } from '../../src/targets/table/writer.ts'
import { LIMITS } from '../../src/task/limits.ts'
import { anExecution } from '../execution/executor.conformance.ts'
import { inDatabase } from '../support/database.ts'
import { targetContext } from '../support/target-context.ts'
import { until } from '../support/until.ts'
import { type TablesUnderTest, tablesUnderTest } from './table-under-test.ts'

let tables: TablesUnderTest

beforeEach(async () => {
  tables = await tablesUnderTest()
})

afterEach(() => tables.end())

const SUCCEEDED = { kind: 'succeeded' } as const
const TRANSACTIONS = `create table data.client_transaction (
  id bigint generated always as identity primary key, client_name text not null, transaction_type text,
  amount decimal(10,2) not null, date date, status varchar(8) default 'new')`

describe('a table target', () => {
  test("makes a row of the payload's fields, and columns that are not there take their defaults", async () => {
    await tables.query(TRANSACTIONS)
    const run = tables.target({ table: 'client_transaction' })
    expect(
      await run('{"client_name": "Ada", "amount": 10.10, "date": "2026-11-25", "transaction_type": null}'),
    ).toEqual(SUCCEEDED)
    expect(await tables.query('select * from data.client_transaction')).toMatchObject([
      { client_name: 'Ada', amount: '10.10', date: '2026-11-25', transaction_type: null, status: 'new' },
    ])
  })

  test('keeps numbers digit by digit, whatever JavaScript would make of them', async () => {
    await tables.query('create table data.n (id int, big bigint, amount decimal(10,2), exact numeric, text text)')
    const run = tables.target({ table: 'data.n' })
    const payloads = [
      '{"id": 1, "big": 9007199254740993, "amount": 10.10, "exact": 0.1000000000000000055511151231257827, "text": 1.0}',
      '{"id": 2, "big": "9223372036854775807", "amount": "10.10", "exact": 1e-30, "text": 12345678901234567890}',
      '{"id": 3, "big": -9223372036854775808, "amount": 99999999.99, "exact": 123456789012345678901234567890.5, "text": true}',
    ]
    expect(await Promise.all(payloads.map((payload) => run(payload)))).toEqual([SUCCEEDED, SUCCEEDED, SUCCEEDED])
    const rows = await tables.query('select big::text, amount::text, exact::text, text from data.n order by id')
    expect(rows).toEqual([
      { big: '9007199254740993', amount: '10.10', exact: '0.1000000000000000055511151231257827', text: '1.0' },
      { big: '9223372036854775807', amount: '10.10', exact: `0.${'0'.repeat(29)}1`, text: '12345678901234567890' },
      { big: '-9223372036854775808', amount: '99999999.99', exact: '123456789012345678901234567890.5', text: 'true' },
    ])
  })

  test('takes JSON for columns of JSON, arrays for arrays, and times', async () => {
    await tables.query(
      'create table data.t (doc json, docb jsonb, tags text[], numbers bigint[], at timestamptz, no bytea)',
    )
    const run = tables.target({ table: 't' })
    const payload =
      '{"doc": {"b": 1.0, "a": [1]}, "docb": [1, {"x": null}], "tags": ["a", "b,c"], "numbers": [9007199254740993], "at": "2026-11-25 12:00:00"}'
    expect(await run(payload)).toEqual(SUCCEEDED)
    const [row] = await tables.query('select doc::text, docb::text, tags, numbers::text, at::text from data.t')
    expect(row).toEqual({
      doc: '{"b": 1.0, "a": [1]}',
      docb: '[1, {"x": null}]',
      tags: ['a', 'b,c'],
      numbers: '{9007199254740993}',
      at: '2026-11-25 12:00:00+00',
    })
  })

  test('takes columns from where the target says, a default where nothing is, and constants', async () => {
    await tables.query(TRANSACTIONS)
    const run = tables.target({
      table: 'client_transaction',
      columns: {
        client_name: '/client/name',
        amount: '/items/1/price',
        status: { path: '/status', default: 'open' },
        transaction_type: { value: 'sale' },
      },
    })
    const payload = '{"client": {"name": "Ada"}, "items": [{}, {"price": 7.50}], "other": 1}'
    expect(await run(payload)).toEqual(SUCCEEDED)
    expect(await run('{"client": {"name": "Ada"}, "items": []}')).toEqual({
      kind: 'failed',
      retryable: false,
      error: 'The payload has nothing at "/items/1/price", which column "amount" is taken from',
    })
    expect(
      await tables.query('select client_name, amount, status, transaction_type from data.client_transaction'),
    ).toEqual([{ client_name: 'Ada', amount: '7.50', status: 'open', transaction_type: 'sale' }])
  })

  test('takes names as they are, however odd', async () => {
    await tables.query(
      'create schema "Odd schema"; create table "Odd schema"."T-1" ("a ""b""" int, "select" text, "Ä" text)',
    )
    const run = tables.target({ table: 'Odd schema.T-1' }, { onlySchema: false })
    expect(await run(JSON.stringify({ 'a "b"': 1, select: "'; drop table x", Ä: '\\u0041' }))).toEqual(SUCCEEDED)
    expect(await tables.query('select * from "Odd schema"."T-1"')).toEqual([
      { 'a "b"': 1, select: "'; drop table x", Ä: '\\u0041' },
    ])
  })
})

describe('a row that its table refuses is dead, with what Postgres says and the column:', () => {
  test.each([
    [
      'a text for a number',
      '{"client_name": "A", "amount": "ten"}',
      'column "amount": invalid input syntax for type numeric: "ten"',
    ],
    [
      'a number with too many digits',
      '{"client_name": "A", "amount": 123456789.5}',
      'column "amount": numeric field overflow',
    ],
    [
      'a text that is too long',
      '{"client_name": "A", "amount": 1, "status": "far too long"}',
      'column "status": value too long for type character varying(8)',
    ],
    [
      'a date that is none',
      '{"client_name": "A", "amount": 1, "date": "2026-02-30"}',
      'column "date": date/time field value out of range: "2026-02-30"',
    ],
    [
      'a field that is missing',
      '{"amount": 1}',
      'null value in column "client_name" of relation "client_transaction" violates not-null constraint',
    ],
    [
      'a field without a column',
      '{"client_name": "A", "amount": 1, "extra": 1, "more": 2}',
      'column "extra" of "data"."client_transaction" does not exist; column "more" of',
    ],
    [
      'a column that Postgres fills',
      '{"client_name": "A", "amount": 1, "id": 5}',
      'cannot insert a non-DEFAULT value into column "id"',
    ],
    ['no object', '[1]', 'The payload must be an object whose fields are the columns'],
    ['an empty object', '{}', 'The payload must be an object whose fields are the columns'],
    ['a field that is there twice', '{"amount": 1, "amount": 2}', '/amount stands in the object more than once'],
  ])('%s', async (_, payload, error) => {
    await tables.query(TRANSACTIONS)
    const outcome = await tables.target({ table: 'client_transaction' })(payload)
    expect(outcome).toMatchObject({ kind: 'failed', retryable: false, error: expect.stringContaining(error) })
    expect(await tables.query('select count(*)::int as count from data.client_transaction')).toEqual([{ count: 0 }])
  })

  test('a key that is taken, a check, a foreign key and what a trigger raises', async () => {
    await tables.query(`create table data.parents (id int primary key);
      create table data.children (id int primary key, parent int references data.parents, size int check (size < 10));
      create function data.refuse() returns trigger language plpgsql as
        $$ begin if new.size = 7 then raise exception 'seven is not wanted'; end if; return new; end $$;
      create trigger refuse before insert on data.children for each row execute function data.refuse()`)
    const run = tables.target({ table: 'children' })
    expect(await run('{"id": 1}')).toEqual(SUCCEEDED)
    const dead = async (payload: string) => {
      const outcome = await run(payload)
      return outcome.kind === 'failed' && !outcome.retryable ? outcome.error : outcome
    }
    expect(await dead('{"id": 1}')).toContain('"children_pkey" (Key (id)=(1) already exists.)')
    expect(await dead('{"id": 2, "size": 11}')).toContain('violates check constraint')
    expect(await dead('{"id": 2, "parent": 9}')).toContain('is not present in table "parents"')
    expect(await dead('{"id": 2, "size": 7}')).toContain('seven is not wanted')
  })
})

describe('what somebody can mend is tried again, and the error says what to do:', () => {
  test('a table that is not there yet', async () => {
    const run = tables.target({ table: 'later' })
    expect(await run('{"a": 1}')).toEqual({
      kind: 'failed',
      retryable: true,
      error:
        'Cannot insert into "data"."later": relation "data.later" does not exist (make it: the task is tried again)',
    })
    await tables.query('create table data.later (a int)')
    expect(await run('{"a": 1}')).toEqual(SUCCEEDED)
  })

  test('a column that was added since', async () => {
    await tables.query('create table data.t (a int)')
    const run = tables.target({ table: 't' })
    expect(await run('{"a": 1}')).toEqual(SUCCEEDED)
    expect(await run('{"a": 1, "b": 2}')).toMatchObject({ retryable: false })
    await tables.query('alter table data.t add column b int, alter column a type text')
    expect(await run('{"a": "one", "b": 2}')).toEqual(SUCCEEDED)
  })

  test('rights that are missing, on the table or to keep notes', async () => {
    const role = `longshore_tables_${process.pid}`
    await tables.query(`create table data.t (a int); create role ${role} login password 'open sesame'`)
    try {
      await tables.query(`grant usage on schema data to ${role}`)
      const url = ('url' in tables.testing.connection ? tables.testing.connection.url : '').replace(
        /\/\/[^@]*@/,
        `//${role}:open%20sesame@`,
      )
      const run = tables.target({ table: 'data.t' }, { connection: { url }, onlySchema: false })
      expect(await run('{"a": 1}')).toMatchObject({
        retryable: true,
        error: expect.stringMatching(
          /permission denied for schema data\. Have it made with: create table if not exists "data"\."longshore_applied" \(task_id/,
        ),
      })
      await tables.query(`create table data.longshore_applied (task_id uuid primary key, applied_at timestamptz not null default now());
        grant insert, select on data.longshore_applied to ${role}`)
      expect(await run('{"a": 1}')).toMatchObject({
        retryable: true,
        error: expect.stringContaining('permission denied for table t (grant it: the task is tried again)'),
      })
      await tables.query(`grant insert on data.t to ${role}`)
      expect(await run('{"a": 1}')).toEqual(SUCCEEDED)
    } finally {
      await tables.query(`drop owned by ${role}; drop role ${role}`)
    }
  })

  test('a server that does not answer, a password that is wrong: and neither it nor the URL is told', async () => {
    const { connection } = tables.testing
    const url = 'url' in connection ? connection.url : ''
    const port = new URL(url).port || '5432'
    for (const wrong of [
      url.replace(`:${port}/`, ':1/').replace('//postgres@', '//postgres:open-sesame@'),
      inDatabase(url, 'no_such_database').replace('//postgres@', '//postgres:open-sesame@'),
      url.replace(/\/\/[^@]*@/, '//nobody-of-that-name:open-sesame@'),
    ]) {
      const run = tables.target({ table: 't' }, { connection: { url: wrong } })
      const outcome = await run('{"a": 1}')
      expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
      expect(JSON.stringify(outcome)).not.toContain('sesame')
    }
  })

  test('a process without a database for tables', async () => {
    const run = createTableTarget({ tables: null })
    const outcome = await run(anExecution({ target: { type: 'table', table: 't' } }), targetContext())
    expect(outcome).toMatchObject({ retryable: true, error: expect.stringContaining('TABLE_DATABASE_URL') })
  })
})

describe('beside the ledger, a table target writes to its own schema only', () => {
  test.each(['public.tasks', 'tasks', 'pg_catalog.pg_class', 'data.longshore_applied', 'DATA.t'])(
    'not to %s',
    async (table) => {
      const outcome = await tables.target({ table })('{"a": 1}')
      if (table === 'tasks') expect(outcome).toMatchObject({ error: expect.stringContaining('"data"."tasks"') })
      else expect(outcome).toMatchObject({ retryable: false, error: expect.stringContaining('may not be written') })
    },
  )

  test('which it makes', async () => {
    await tables.query('drop schema data')
    expect(await tables.target({ table: 't' })('{"a": 1}')).toMatchObject({ retryable: true })
    await tables.query('create table data.t (a int)')
    expect(await tables.target({ table: 't' })('{"a": 1}')).toEqual(SUCCEEDED)
  })

  test('and makes it again when it was dropped under it', async () => {
    await tables.query('create table data.t (a int)')
    const run = tables.target({ table: 't' })
    expect(await run('{"a": 1}')).toEqual(SUCCEEDED)
    await tables.query('drop schema data cascade')
    expect(await run('{"a": 1}')).toMatchObject({ retryable: true })
    await tables.query('create table data.t (a int)')
    expect(await run('{"a": 1}')).toEqual(SUCCEEDED)
  })
})

describe('a task has one row', () => {
  test('however often it is attempted, in one batch or in many, from one process or several', async () => {
    await tables.query('create table data.t (n int)')
    const [here, there] = [tables.target({ table: 't' }), tables.target({ table: 't' })]
    const ids = Array.from({ length: 200 }, () => uuidv7())
    const attempts = [1, 2, 3].flatMap((attempt) =>
      [here, there].flatMap((run) => ids.map((id, n) => run(`{"n": ${n}}`, { id, attempt }))),
    )
    expect(new Set((await Promise.all(attempts)).map(({ kind }) => kind))).toEqual(new Set(['succeeded']))
    const [counts] = await tables.query('select count(*)::int, count(distinct n)::int as tasks from data.t')
    expect(counts).toEqual({ count: 200, tasks: 200 })
  })

  test('also when several processes make the notes at the same time', async () => {
    await tables.query('drop schema data cascade')
    const runs = Array.from({ length: 8 }, () => tables.target({ table: 'public.t' }, { onlySchema: false }))
    await tables.query('create table public.t (n int)')
    const outcomes = await Promise.all(runs.map((run, n) => run(`{"n": ${n}}`)))
    expect(outcomes).toEqual(runs.map(() => SUCCEEDED))
  })
})

describe('rows that come together', () => {
  test('share statements, and one that is refused takes no other with it', async () => {
    await tables.query(`create table data.t (n int); create table data.statements (n int);
      create function data.note() returns trigger language plpgsql as
        $$ begin insert into data.statements select count(*) from inserted; return null; end $$;
      create trigger note after insert on data.t referencing new table as inserted
        for each statement execute function data.note()`)
    const run = tables.target({ table: 't' })
    const poison = new Set([3, 250, 251, 499])
    const outcomes = await Promise.all(
      Array.from({ length: 500 }, (_, n) => run(poison.has(n) ? `{"n": "poison ${n}"}` : `{"n": ${n}}`)),
    )
    for (const [n, outcome] of outcomes.entries()) {
      if (poison.has(n))
        expect(outcome).toMatchObject({ retryable: false, error: expect.stringContaining(`"poison ${n}"`) })
      else expect(outcome).toEqual(SUCCEEDED)
    }
    const [counts] = await tables.query('select count(*)::int, count(distinct n)::int as tasks from data.t')
    expect(counts).toEqual({ count: 496, tasks: 496 })
    // About log2(500) for each that is refused, not one a row.
    const [{ statements }] = (await tables.query('select count(*)::int as statements from data.statements')) as [
      { statements: number },
    ]
    expect(statements).toBeLessThan(60)
  })

  test('may have different fields', async () => {
    await tables.query("create table data.t (n int, a text default 'none', b text)")
    const run = tables.target({ table: 't' })
    const payloads = Array.from(
      { length: 90 },
      (_, n) => [`{"n": ${n}}`, `{"a": "x", "n": ${n}}`, `{"b": "y", "n": ${n}}`][n % 3],
    )
    expect(new Set((await Promise.all(payloads.map((payload) => run(payload ?? '')))).map(({ kind }) => kind))).toEqual(
      new Set(['succeeded']),
    )
    expect(await tables.query('select a, b, count(*)::int from data.t group by a, b order by a, b')).toEqual([
      { a: 'none', b: 'y', count: 30 },
      { a: 'none', b: null, count: 30 },
      { a: 'x', b: null, count: 30 },
    ])
  })

  test('may be large', async () => {
    await tables.query('create table data.t (text text)')
    const run = tables.target({ table: 't' })
    const payload = JSON.stringify({ text: 'x'.repeat(LIMITS.payloadBytes - 20) })
    const outcomes = await Promise.all(Array.from({ length: 30 }, () => run(payload)))
    expect(outcomes).toEqual(outcomes.map(() => SUCCEEDED))
    expect(await tables.query('select count(*)::int from data.t')).toEqual([{ count: 30 }])
  })

  test('do not hold up one that is aborted', async () => {
    await tables.query('create table data.t (n int)')
    const run = createTableTarget({ tables: tables.settings })
    const locker = await tables.testing.database.pool.connect()
    await locker.query('begin; lock table data.t')
    const controller = new AbortController()
    const execution = anExecution({ payload: '{"n": 1}', target: { type: 'table', table: 't' } })
    const aborted = run(execution, targetContext({ signal: controller.signal }))
    controller.abort()
    expect(await aborted).toMatchObject({ kind: 'failed', retryable: true })
    await locker.query('rollback')
    locker.release()
    // It may have gone in: the next attempt finds out.
    expect(await run({ ...execution, attempt: 2 }, targetContext())).toEqual(SUCCEEDED)
    expect(await tables.query('select count(*)::int from data.t')).toEqual([{ count: 1 }])
    await run.close()
  })
})

test('tasks are forgotten after 100 days, in batches and beside the work', async () => {
  await tables.query('create table data.t (n int)')
  const writer = createTableWriter(tables.settings)
  const write = () => writer.write({ schema: 'data', table: 't' }, { id: uuidv7(), columns: ['n'], record: '{"n":1}' })
  await write()
  await writer.close()
  await tables.query(`insert into data.longshore_applied
    select gen_random_uuid(), now() - case when n <= 2500 then interval '101 days' else interval '99 days' end
    from generate_series(1, 3000) as n`)
  const another = createTableWriter(tables.settings)
  await another.write({ schema: 'data', table: 't' }, { id: uuidv7(), columns: ['n'], record: '{"n":1}' })
  await until(async () => {
    const [row] = await tables.query<{ count: number }>('select count(*)::int from data.longshore_applied')
    return row?.count === 502
  })
  await another.close()
})
