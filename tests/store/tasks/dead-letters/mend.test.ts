import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { adoptStrays } from '../../../../src/store/tasks/claim/adopt.ts'
import { mendTask } from '../../../../src/store/tasks/dead-letters/mend.ts'
import { replayTasks } from '../../../../src/store/tasks/dead-letters/replay.ts'
import type { StrayMessage } from '../../../../src/task/ledger.ts'
import { LIMITS } from '../../../../src/task/limits.ts'
import { ENGINES } from '../../../support/database.ts'
import { DEAD, SUCCEEDED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

describe.each(ENGINES)('mending on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  test('a dead letter gets another payload, as the very text, and keeps what it was', async () => {
    const id = await ledger.insert({ payload: '{"n": 1.0}' })
    await ledger.run(id, DEAD)
    expect(await mendTask(ledger.pool, id, '{"n": 12345678901234567890}', 'key "ops"')).toBe('mended')
    expect(await ledger.row(id)).toMatchObject({
      status: 'dead',
      payload: '{"n": 12345678901234567890}',
      error: 'no way',
      logs: ['payload replaced by key "ops"; it was: {"n": 1.0}'],
    })
    await replayTasks(ledger.pool, [id])
    expect((await ledger.claimOne(id)).payload).toBe('{"n": 12345678901234567890}')
  })

  async function deadMessage(payload: string, message: Partial<StrayMessage>): Promise<string> {
    const id = v7()
    const stray = { id, payload, type: null, priority: 0, traceparent: null }
    const kept = {
      exchange: '',
      routingKey: 'default',
      properties: {},
      headers: { nul: '\0', unreadable: true },
      ...message,
    }
    const claim = { node: ledger.node, queue: 'default', claimId: v7() }
    await adoptStrays(ledger.pool, claim, [{ kind: 'unreadable', reason: 'no way', ...stray, message: kept }])
    return id
  }

  test('a message that had no payload is not replayed before it has one, one that was only rejected is', async () => {
    const poison = await deadMessage('null', { body: '//5B', unreadable: true })
    const rejected = await deadMessage('null', { body: 'bnVsbA==' })
    const text = await deadMessage('{"raw":"a"}', { body: 'YQ==' })
    const { replayed } = await replayTasks(ledger.pool, [poison, rejected, text])
    expect(replayed.map(({ outcome }) => outcome)).toEqual(['unreadable', 'replayed', 'replayed'])
    expect(await ledger.status(poison)).toBe('dead')
    await mendTask(ledger.pool, poison, 'null', 'me')
    expect(JSON.parse((await ledger.row(poison)).message as string)).toEqual({
      exchange: '',
      routingKey: 'default',
      properties: {},
      headers: { nul: '\0', unreadable: true },
      body: '//5B',
    })
    expect((await replayTasks(ledger.pool, [poison])).replayed).toEqual([{ id: poison, outcome: 'replayed' }])
  })

  test('what it was is cut to a line, and the last lines are kept', async () => {
    const payload = JSON.stringify('ä'.repeat(10_000))
    const id = await ledger.insert({ payload })
    await ledger.run(id, DEAD)
    await ledger.pool.query(`update tasks set logs = (select jsonb_agg('line ' || n) from generate_series(1, 100) n)`)
    await mendTask(ledger.pool, id, '1', 'me')
    const { logs } = await ledger.row(id)
    expect([logs?.length, logs?.[0]]).toEqual([LIMITS.logLines, 'line 2'])
    expect(logs?.at(-1)).toEndWith('ä [cut]')
    expect(Buffer.byteLength(logs?.at(-1) ?? '')).toBeLessThanOrEqual(LIMITS.logLineBytes)
  })

  test('what lives, succeeded, is a parent whose own work is done, or is not there stays as it is', async () => {
    const [pending, done, cancelled, sealed] = (await ledger.insertMany([{ priority: 1 }, {}, {}, {}])) as [
      string,
      string,
      string,
      string,
    ]
    await ledger.run(done, SUCCEEDED)
    await ledger.cancel(cancelled)
    const child = await ledger.insert({ parentId: sealed })
    await ledger.run(sealed, SUCCEEDED)
    await ledger.run(child, DEAD)
    const mend = (id: string) => mendTask(ledger.pool, id, '2', 'me')
    expect([await mend(pending), await mend(done), await mend(sealed), await mend(v7())]).toEqual([
      'not-mendable',
      'not-mendable',
      'not-mendable',
      'unknown',
    ])
    expect([await mend(cancelled), await mend(child)]).toEqual(['mended', 'mended'])
    expect((await ledger.row(pending)).payload).toBe('{}')
  })
})
