import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { inTransaction, isRefusedRow, prepared, repeated } from '../../../src/store/database/statement.ts'
import { ENGINES } from '../../support/database.ts'
import { type TaskLedger, taskLedger } from '../../support/tasks.ts'

describe.each(ENGINES)('transactions on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
    await ledger.pool.query('create table pairs (id int primary key, value int not null)')
    await ledger.pool.query('insert into pairs values (1, 0), (2, 0)')
  })
  afterAll(() => ledger.test.drop())

  const values = async () =>
    (await ledger.pool.query<{ value: number }>('select value from pairs order by id')).rows.map((row) => row.value)

  test('commit what the work did, or nothing when it throws, and give the connection back', async () => {
    const result = await inTransaction(ledger.pool, async (tx) => {
      await tx.query('update pairs set value = 1')
      return 'done'
    })
    expect([result, await values()]).toEqual(['done', [1, 1]])
    const failure = inTransaction(ledger.pool, async (tx) => {
      await tx.query('update pairs set value = 2')
      throw new Error('on purpose')
    })
    await expect(failure).rejects.toThrow('on purpose')
    expect(await values()).toEqual([1, 1])
    expect(ledger.pool.idleCount).toBe(ledger.pool.totalCount)
  })

  test('23: two that wait for each other both finish, each once', async () => {
    await ledger.pool.query('update pairs set value = 0')
    let ready = 0
    let go = () => {}
    const both = new Promise<void>((resolve) => {
      go = resolve
    })
    const add = (first: number, second: number) =>
      inTransaction(ledger.pool, async (tx) => {
        await tx.query('update pairs set value = value + 1 where id = $1', [first])
        if (++ready === 2) go()
        await both
        await tx.query('update pairs set value = value + 1 where id = $1', [second])
      })
    await Promise.all([add(1, 2), add(2, 1)])
    expect(await values()).toEqual([2, 2])
    // One of them was the victim and came again; under load both may be.
    expect(ready).toBeGreaterThanOrEqual(3)
  }, 60_000)

  test('a connection that dies in a transaction fails it, is not used again, and its work is not repeated', async () => {
    let runs = 0
    const failure = inTransaction(ledger.pool, async (tx) => {
      runs++
      const { rows } = await tx.query<{ pid: number }>('select pg_backend_pid() as pid')
      await ledger.pool.query('select pg_terminate_backend($1)', [rows[0]?.pid])
      await tx.query('update pairs set value = 9')
    })
    expect(
      await failure.then(
        () => 'committed',
        () => 'failed',
      ),
    ).toBe('failed')
    expect(runs).toBe(1)
    expect(await values()).not.toContain(9)
    for (let i = 0; i < 12; i++) await ledger.pool.query('select 1')
  })

  test('an error that is no deadlock is not repeated, and a deadlock not for ever', async () => {
    let runs = 0
    const fail = (code: string) => () => {
      runs++
      return Promise.reject(Object.assign(new Error(code), { code }))
    }
    await expect(repeated(fail('23505'))).rejects.toThrow('23505')
    expect(runs).toBe(1)
    await expect(repeated(fail('40P01'))).rejects.toThrow('40P01')
    expect(runs).toBe(6)
  })

  test('a prepared statement is parsed once a connection', async () => {
    const client = await ledger.pool.connect()
    try {
      for (let i = 0; i < 3; i++)
        expect(await prepared(client, 'twice', 'select $1::int * 2 as n', [i])).toEqual([{ n: i * 2 }])
      const { rows } = await client.query(`select name from pg_prepared_statements where name = 'twice'`)
      expect(rows).toEqual([{ name: 'twice' }])
    } finally {
      client.release()
    }
  })
})

test('only what a row holds is its fault; what is not known is the database’s', () => {
  const coded = (code: string) => Object.assign(new Error(code), { code })
  for (const code of ['22P02', '22003', '23503', '23505', '54000', '54001'])
    expect(isRefusedRow(coded(code))).toBe(true)
  expect(isRefusedRow(new TypeError('a mistake of ours'))).toBe(true)
  const others = ['58030', 'XX000', '42501', '42703', '40P01', '57P01', '53300', 'ENETDOWN', 'EMFILE', 'EADDRNOTAVAIL']
  for (const code of [...others, 'CERT_HAS_EXPIRED', '22']) expect(isRefusedRow(coded(code))).toBe(false)
  for (const text of ['The server does not support SSL connections', 'SASL: SCRAM-SERVER-FINAL-MESSAGE'])
    expect(isRefusedRow(new Error(text))).toBe(false)
})
