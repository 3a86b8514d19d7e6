import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { insertConsumer } from '../../../src/store/topology/consumers.ts'
import { takeTokens } from '../../../src/store/topology/tokens.ts'
import { ENGINES } from '../../support/database.ts'
import { type TaskLedger, taskLedger } from '../../support/tasks.ts'

describe.each(ENGINES)('tokens on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterAll(() => ledger.test.drop())

  const consumer = async (rateLimit: { count: number; per: string; burst?: number } | null) => {
    const id = v7()
    const order = {
      id,
      queue: 'default',
      target: { type: 'noop' } as const,
      concurrency: 1,
      timeoutMs: 1,
      paused: false,
    }
    await insertConsumer(ledger.test.database.db, { ...order, rateLimit })
    return id
  }
  const passes = (id: string, ms: number) =>
    ledger.pool.query(`update tokens set refilled_at = refilled_at - $2 * interval '1 ms' where consumer = $1`, [
      id,
      ms,
    ])

  test('a full bucket grants its burst at once, and then what time brings', async () => {
    const id = await consumer({ count: 2, per: '1h', burst: 5 })
    expect(await takeTokens(ledger.pool, id, 3)).toEqual({ granted: 3, retryAfterMs: 0 })
    const rest = await takeTokens(ledger.pool, id, 10)
    expect(rest.granted).toBe(2)
    expect(rest.retryAfterMs).toBeGreaterThan(29 * 60_000)
    expect(rest.retryAfterMs).toBeLessThanOrEqual(30 * 60_000)
    await passes(id, 30 * 60_000)
    expect(await takeTokens(ledger.pool, id, 10)).toMatchObject({ granted: 1 })
    await passes(id, 100 * 3_600_000)
    expect(await takeTokens(ledger.pool, id, 100)).toMatchObject({ granted: 5 })
  })

  test('many nodes that ask at once are granted no more than there is, and no less', async () => {
    const id = await consumer({ count: 100, per: '24h' })
    let granted = 0
    await Promise.all(
      Array.from({ length: 10 }, async () => {
        for (let round = 0; round < 6; round++) {
          const answer = await takeTokens(ledger.pool, id, 7)
          granted += answer.granted
        }
      }),
    )
    expect(granted).toBe(100)
  })

  test('a clock that goes back refills nothing and takes nothing away', async () => {
    const id = await consumer({ count: 10, per: '24h' })
    await takeTokens(ledger.pool, id, 4)
    await passes(id, -3_600_000)
    expect(await takeTokens(ledger.pool, id, 100)).toMatchObject({ granted: 6 })
  })

  test('a consumer without a limit, and one that is gone, are granted all they ask for', async () => {
    expect(await takeTokens(ledger.pool, await consumer(null), 9)).toEqual({ granted: 9, retryAfterMs: 0 })
    expect(await takeTokens(ledger.pool, v7(), 9)).toEqual({ granted: 9, retryAfterMs: 0 })
  })
})
