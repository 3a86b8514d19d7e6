import { afterAll, beforeAll, expect, test } from 'bun:test'
import { ENGINES, type Engine } from '../support/database.ts'
import type { Sink, SinkRequest } from '../support/sink.ts'
import { DEAD, SUCCEEDED, type TaskLedger, taskLedger } from '../support/tasks.ts'
import type { Expected } from './traffic.ts'
import { judge, NOTHING_WRONG } from './verdict.ts'

// The fault tests are worth what this judgement sees.

let ledger: TaskLedger
beforeAll(async () => {
  ledger = await taskLedger(ENGINES[0] as Engine)
})
afterAll(() => ledger.test.drop())

const expecting = (key: string, id: string | undefined, more: Partial<Expected> = {}): Expected => ({
  ...{ key, id, status: 'succeeded', delivered: true, doubled: false },
  ...more,
})
const request = (task: string, attempt: number, startedAt: number, endedAt: number | undefined) =>
  ({ task, attempt, startedAt, endedAt }) as SinkRequest
const judged = (expected: Expected[], requests: SinkRequest[]) =>
  judge(ledger.pool, expected, { requests } as unknown as Sink)

test('the verdict finds nothing wrong with what went well, and names each fault when there is one', async () => {
  const key = (idempotencyKey: string, more = {}) => ({ idempotencyKey, fingerprint: 'f', ...more })
  const [good, live, dead] = (await ledger.insertMany([key('good'), key('live'), key('dead')])) as [
    string,
    string,
    string,
  ]
  await ledger.run(good, SUCCEEDED)
  await ledger.run(dead, DEAD)
  const { attempt } = await ledger.row(good)
  const once = [request(good, attempt, 10, 20)]

  expect(await judged([expecting('good', good)], once)).toEqual(NOTHING_WRONG)
  // Not answered and not there: the client knows that it has to send it again.
  expect(await judged([expecting('unanswered', undefined)], once)).toEqual(NOTHING_WRONG)

  const found = async (expected: Expected, requests = once) => {
    const verdict = await judged([expected], requests)
    return Object.entries(verdict).flatMap(([name, value]) => (Array.isArray(value) && value.length > 0 ? name : []))
  }
  expect(await found(expecting('gone', good))).toEqual(['missing'])
  expect(await found(expecting('good', dead))).toEqual(['missing'])
  expect(await found(expecting('good', good), [])).toEqual(['missing'])
  expect(await found(expecting('live', live))).toEqual(['neverFinal'])
  expect(await found(expecting('dead', dead, { delivered: false }))).toEqual(['otherwise'])
  expect(await found(expecting('good', good, { doubled: true }))).toEqual(['doubledTasks'])
  const before = attempt - 1
  expect(await found(expecting('good', good), [request(good, before, 5, 11), ...once])).toEqual(['doubledAtOnce'])
  expect(await found(expecting('good', good), [request(good, before, 5, undefined), ...once])).toEqual([
    'doubledAtOnce',
  ])
  expect(await found(expecting('good', good), [request(good, before, 5, 9), ...once])).toEqual([])
  expect(await found(expecting('good', good), [request(good, attempt, 5, 9), ...once])).toEqual(['repeatedAttempts'])

  await ledger.pool.query('delete from tasks where id = $1', [dead])
  expect((await judged([expecting('good', good)], once)).unaccounted).toBe(1)
})
