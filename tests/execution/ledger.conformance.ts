import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import type { Claim, DeliveryClaim, Ledger, Settlement } from '../../src/task/ledger.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { attemptOf, type ClaimedTask, type NewTask } from '../../src/task/task.ts'
import { DEAD, FAILED, IDLE, LOST, RETURNED, SUCCEEDED, type TaskLedger } from '../support/tasks.ts'
import { foreign, killNode, type LedgerUnderTest, taskOf, unreadable, withoutWait } from './ledger-under-test.ts'

/** What every `Ledger` promises, checked on a real Postgres. */
export function ledgerConformance(name: string, open: () => Promise<LedgerUnderTest>): void {
  let under: LedgerUnderTest
  let ledger: Ledger
  let tasks: TaskLedger
  let node: string

  const claimOf = (deliveries: DeliveryClaim[], changes: Partial<Claim> = {}): Claim => ({
    claimId: v7(),
    node,
    queue: 'default',
    deliveries,
    ...changes,
  })

  /** Tasks that were handed to the broker, as their messages. */
  async function queued(...given: Partial<NewTask>[]): Promise<Extract<DeliveryClaim, { kind: 'task' }>[]> {
    const ids = await tasks.insertMany(given)
    await tasks.pool.query(`update tasks set status = 'queued' where id = any($1)`, [ids])
    return ids.map((id) => ({ kind: 'task', id, attempt: 1 }))
  }

  async function claimed(task: Partial<NewTask> = {}, by: string = node): Promise<ClaimedTask> {
    const [answer] = await ledger.claim(claimOf(await queued(task), { node: by }))
    return taskOf(answer)
  }

  const settle = async (task: ClaimedTask, outcome: Outcome, by: string = node) =>
    (await ledger.settle(by, [{ ...attemptOf(task), outcome }]))[0]

  const beat = (held: string[] = [], by: string = node) =>
    ledger.beat({ node: by, held, started: held.slice(0, 1), state: IDLE })

  describe(`the ledger, ${name}`, () => {
    beforeAll(async () => {
      under = await open()
      ledger = under.ledger
      tasks = under.tasks
      node = await under.join()
    })
    afterEach(async () => {
      await tasks.pool.query('delete from consumers')
      await tasks.clear()
      node = await under.join()
    })
    afterAll(() => under.close())

    describe('claim', () => {
      test('a queued task becomes this node’s, and its payload and target are the text that was submitted', async () => {
        const payload = '{ "b": 1.0, "a": 12345678901234567890, "snow": "\u2603\u2028" }'
        const target = '{"type":"http","url":"https://a.example/"}'
        const task = await claimed({ payload, target, type: 'parcel', priority: 7, timeoutMs: 1_500, maxAttempts: 4 })
        expect(task).toMatchObject({
          ...{ queue: 'default', type: 'parcel', payload, target, priority: 7, attempt: 1, failures: 0 },
          ...{ maxAttempts: 4, lostStarts: 0, timeoutMs: 1_500, parentId: null, origin: 'api' },
        })
        expect(await tasks.row(task.id)).toMatchObject({ status: 'running', attempt: 1, node })
      })

      test('answers come in the order of the deliveries, however many there are', async () => {
        const deliveries = await queued(...Array.from({ length: 250 }, (_, n) => ({ payload: `${n}` })))
        const shuffled = deliveries.map((delivery, index) => ({ delivery, order: (index * 7) % 250 }))
        shuffled.sort((a, b) => a.order - b.order)
        const answers = await ledger.claim(claimOf(shuffled.map(({ delivery }) => delivery)))
        expect(answers.map((answer) => taskOf(answer).id)).toEqual(shuffled.map(({ delivery }) => delivery.id))
      })

      test('a message that is there twice is claimed once, in one batch, in the next, and when the batch is repeated', async () => {
        const [one, two] = (await queued({}, {})) as [DeliveryClaim, DeliveryClaim]
        const claim = claimOf([one, structuredClone(one), two])
        const kinds = async (asked: Claim) => (await ledger.claim(asked)).map(({ kind }) => kind)
        const [first, second, third] = await kinds(claim)
        expect([first, second].sort()).toEqual(['claimed', 'duplicate'])
        expect(third).toBe('claimed')
        expect(await kinds(claimOf([one, two]))).toEqual(['duplicate', 'duplicate'])
        expect((await kinds(claim)).sort()).toEqual(['claimed', 'claimed', 'duplicate'])
      })

      test('the message of an attempt that is over, or was never sent, is a duplicate', async () => {
        const task = await claimed()
        await settle(task, SUCCEEDED)
        const [late] = await queued({})
        const answers = await ledger.claim(
          claimOf([
            { kind: 'task', id: task.id, attempt: 1 },
            { kind: 'task', id: late?.id ?? '', attempt: 2 },
          ]),
        )
        expect(answers).toEqual([{ kind: 'duplicate' }, { kind: 'duplicate' }])
        expect(await tasks.row(late?.id ?? '')).toMatchObject({ status: 'queued', attempt: 0 })
      })

      test('a task that the ledger does not have is unknown, and so is a copy without a parent', async () => {
        const answers = await ledger.claim(
          claimOf([
            { kind: 'task', id: v7(), attempt: 1 },
            { kind: 'copy', parentId: v7() },
          ]),
        )
        expect(answers).toEqual([{ kind: 'unknown' }, { kind: 'unknown' }])
      })

      test('the same claim again gives the same answers, and takes nothing more', async () => {
        const deliveries = [...(await queued({ payload: '[1]' }, {})), foreign(), unreadable()]
        const claim = claimOf([...deliveries, { kind: 'task', id: v7(), attempt: 1 }])
        const first = await ledger.claim(claim)
        expect(first.map(({ kind }) => kind)).toEqual(['claimed', 'claimed', 'claimed', 'dead', 'unknown'])
        const again = await ledger.claim(claim)
        expect(again.map(withoutWait)).toEqual(first.map(withoutWait))
        const { rows } = await tasks.pool.query('select max(attempt) as attempt, count(*)::int as count from tasks')
        expect(rows).toEqual([{ attempt: 1, count: 4 }])
      })

      test('somebody else’s message becomes a task that runs here, once, and keeps what came with it', async () => {
        const delivery = foreign({ payload: '{"n":12345678901234567890}', type: 'order', priority: 4 })
        const [answer] = await ledger.claim(claimOf([delivery]))
        expect(taskOf(answer)).toMatchObject({
          ...{ id: delivery.id, payload: '{"n":12345678901234567890}', type: 'order', priority: 4 },
          ...{ attempt: 1, origin: 'message', queue: 'default' },
        })
        expect(await ledger.claim(claimOf([delivery, delivery]))).toEqual([
          { kind: 'duplicate' },
          { kind: 'duplicate' },
        ])
        const { rows } = await tasks.pool.query('select message::text as message from tasks where id = $1', [
          delivery.id,
        ])
        expect(JSON.parse(rows[0].message)).toEqual(delivery.message)
        await settle(taskOf(answer), SUCCEEDED)
        expect(await tasks.status(delivery.id)).toBe('succeeded')
      })

      test('somebody else’s message that is there twice in one batch is claimed once', async () => {
        const delivery = foreign()
        const answers = await ledger.claim(claimOf([delivery, structuredClone(delivery)]))
        expect(answers.map(({ kind }) => kind).sort()).toEqual(['claimed', 'duplicate'])
      })

      test('an unreadable message becomes a dead letter with its bytes and reason', async () => {
        const delivery = unreadable()
        expect(await ledger.claim(claimOf([delivery]))).toEqual([{ kind: 'dead' }])
        expect(await ledger.claim(claimOf([delivery]))).toEqual([{ kind: 'dead' }])
        const { rows } = await tasks.pool.query(
          'select status, error, message::text as message from tasks where id = $1',
          [delivery.id],
        )
        expect(rows[0]).toMatchObject({ status: 'dead', error: 'It is not UTF-8' })
        expect(JSON.parse(rows[0].message).body).toBe('/w==')
      })

      test('a copy of a fanned-out task is this queue’s child of it, once', async () => {
        const parent = await tasks.insert({ payload: '{"to":"all"}' })
        await tasks.run(parent, SUCCEEDED)
        await tasks.pool.query(`update tasks set exchange = 'all' where id = $1`, [parent])
        const copy: DeliveryClaim = { kind: 'copy', parentId: parent }
        const answers = await ledger.claim(claimOf([copy, structuredClone(copy)]))
        expect(answers.map(({ kind }) => kind)).toEqual(['claimed', 'duplicate'])
        expect(taskOf(answers[0])).toMatchObject({ parentId: parent, payload: '{"to":"all"}', attempt: 1 })
        await settle(taskOf(answers[0]), SUCCEEDED)
        expect(await tasks.status(parent)).toBe('succeeded')
      })

      test('the tasks of a paused queue go back to the line', async () => {
        await tasks.queue('still', true)
        const [delivery] = await queued({ queue: 'still' })
        const answers = await ledger.claim(claimOf([delivery as DeliveryClaim], { queue: 'still' }))
        expect(answers).toEqual([{ kind: 'duplicate' }])
        expect(await tasks.row(delivery?.id ?? '')).toMatchObject({ status: 'pending', attempt: 0 })
      })

      test('a claim that came too late takes nothing from the node that was faster', async () => {
        const other = await under.join()
        const deliveries = await queued({}, {})
        const [first, second] = await Promise.all([
          ledger.claim(claimOf(deliveries)),
          ledger.claim(claimOf(deliveries, { node: other })),
        ])
        const kinds = deliveries.map((_, index) => [first[index]?.kind, second[index]?.kind].sort())
        expect(kinds).toEqual([
          ['claimed', 'duplicate'],
          ['claimed', 'duplicate'],
        ])
      })
    })

    describe('settle', () => {
      test('each outcome leads where the state machine says', async () => {
        const ends: [Outcome, string][] = [
          [{ kind: 'succeeded', result: '{"n":12345678901234567890}' }, 'succeeded'],
          [FAILED, 'retrying'],
          [DEAD, 'dead'],
          [{ kind: 'snoozed', delayMs: 60_000 }, 'pending'],
          [{ kind: 'cancelled', error: 'not wanted' }, 'cancelled'],
          [RETURNED, 'pending'],
          [LOST, 'pending'],
        ]
        for (const [outcome, status] of ends) {
          const task = await claimed()
          expect(await settle(task, outcome)).toMatchObject({ id: task.id, late: false, status })
          expect(await tasks.status(task.id)).toBe(status)
        }
      })

      test('result, error and response are kept as they were told', async () => {
        const task = await claimed()
        await settle(task, { kind: 'succeeded', result: '{"n":12345678901234567890, "x":1.0}' })
        expect((await tasks.row(task.id)).result).toBe('{"n":12345678901234567890, "x":1.0}')
        const failed = await claimed()
        const response = { status: 502, body: 'gone "away"\n\u2603' }
        await settle(failed, { kind: 'failed', retryable: true, error: 'no \u2603', retryAfterMs: 30_000, response })
        const row = await tasks.row(failed.id)
        expect(row).toMatchObject({ status: 'retrying', error: 'no \u2603', failures: 1 })
        expect(row.attempts).toMatchObject([{ number: 1, node, outcome: 'failed', error: 'no \u2603', response }])
      })

      test('what a server answers against all custom is kept, and a wait of more than a day is a day', async () => {
        const failed = await claimed()
        const response = { status: 999, body: '' }
        await settle(failed, { kind: 'failed', retryable: true, error: 'no', retryAfterMs: 172_800_000, response })
        const row = await tasks.row(failed.id)
        expect(row).toMatchObject({ status: 'retrying', attempts: [{ response }] })
        expect(Date.parse(row.due_at as string) - Date.now()).toBeLessThanOrEqual(86_400_000)
      })

      test('answers come in the order of the settlements, and what is not this node’s is late', async () => {
        const other = await under.join()
        const mine = [await claimed(), await claimed(), await claimed()] as const
        const theirs = await claimed({}, other)
        const settlements = [mine[2], theirs, mine[0], mine[1]].map(
          (task): Settlement => ({ ...attemptOf(task), outcome: SUCCEEDED }),
        )
        const settled = await ledger.settle(node, [...settlements, { ...settlements[0], id: v7() } as Settlement])
        expect(settled.map(({ id, late }) => [id, late]).slice(0, 4)).toEqual([
          [mine[2].id, false],
          [theirs.id, true],
          [mine[0].id, false],
          [mine[1].id, false],
        ])
        expect(settled[4]?.late).toBe(true)
        expect(await tasks.row(theirs.id)).toMatchObject({ status: 'running', node: other })
      })

      test('the same end again is late, and changes nothing', async () => {
        const task = await claimed()
        expect(await settle(task, SUCCEEDED)).toMatchObject({ late: false })
        expect(await settle(task, DEAD)).toEqual({ id: task.id, late: true })
        expect(await tasks.status(task.id)).toBe('succeeded')
      })

      test('the end of an attempt that was followed by another one is late', async () => {
        const first = await claimed()
        await settle(first, FAILED)
        await tasks.pool.query(`update tasks set status = 'queued' where id = $1`, [first.id])
        const [answer] = await ledger.claim(claimOf([{ kind: 'task', id: first.id, attempt: 2 }]))
        expect(await settle(first, SUCCEEDED)).toMatchObject({ late: true })
        expect(taskOf(answer)).toMatchObject({ attempt: 2, failures: 1 })
        expect(await settle(taskOf(answer), SUCCEEDED)).toMatchObject({ late: false, status: 'succeeded' })
      })

      test('a success that comes late is taken while the task still waits, and no other end is', async () => {
        const lucky = await claimed()
        const unlucky = await claimed()
        for (const task of [lucky, unlucky]) await settle(task, LOST)
        expect(await settle(unlucky, DEAD)).toMatchObject({ late: true })
        expect(await settle(lucky, SUCCEEDED)).toMatchObject({ late: false, status: 'succeeded' })
      })

      test('a task that somebody asked to cancel ends cancelled, unless it succeeded', async () => {
        const [failed, succeeded] = [await claimed(), await claimed()]
        for (const task of [failed, succeeded]) expect(await tasks.cancel(task.id)).toBe('requested')
        expect(await settle(failed, FAILED)).toMatchObject({ status: 'cancelled' })
        expect(await settle(succeeded, SUCCEEDED)).toMatchObject({ status: 'succeeded' })
      })

      test('the last attempt that fails makes a dead letter', async () => {
        const task = await claimed({ maxAttempts: 1 })
        expect(await settle(task, FAILED)).toMatchObject({ status: 'dead', late: false })
      })

      test('an outcome that cannot be held is refused as a bad row, and nothing is written', async () => {
        const [good, bad] = [await claimed(), await claimed()]
        const settlements: Settlement[] = [
          { ...attemptOf(good), outcome: SUCCEEDED },
          { ...attemptOf(bad), outcome: { kind: 'succeeded', result: '{"a":' } },
        ]
        const refused = await ledger.settle(node, settlements).catch((error: unknown) => error)
        expect(under.isBadRow(refused)).toBe(true)
        expect([await tasks.status(good.id), await tasks.status(bad.id)]).toEqual(['running', 'running'])
      })

      test('nothing to settle is nothing', async () => {
        expect(await ledger.settle(node, [])).toEqual([])
      })
    })

    describe('beat', () => {
      test('a node that beats lives, and hears how many others do', async () => {
        const before = await beat()
        await under.join()
        expect(await beat()).toEqual({ alive: true, cancel: [], unnamed: [], others: before.others + 1 })
      })

      test('what it holds and asks for cancelling is told, and what it does not name', async () => {
        const [held, cancelled, unnamed] = [await claimed(), await claimed(), await claimed()]
        await tasks.cancel(cancelled.id)
        const answer = await beat([held.id, cancelled.id])
        expect(answer.cancel).toEqual([cancelled.id])
        expect(answer.unnamed).toEqual([attemptOf(unnamed)])
        const { rows } = await tasks.pool.query('select started_tasks as started from nodes where id = $1', [node])
        expect(rows).toEqual([{ started: [held.id] }])
      })

      test('a node that was declared dead hears it, for good', async () => {
        await killNode(tasks, node)
        expect(await beat()).toMatchObject({ alive: false, cancel: [], unnamed: [] })
        expect(await beat()).toMatchObject({ alive: false })
      })

      test('an id that never joined is not alive', async () => {
        expect(await beat([], v7())).toMatchObject({ alive: false })
      })
    })

    describe('report', () => {
      test('progress replaces and lines are added while the attempt runs; those of others are dropped', async () => {
        const other = await under.join()
        const task = await claimed()
        await ledger.report(node, [{ id: task.id, attempt: 1, progress: { done: 1, total: 3 }, lines: ['one'] }])
        await ledger.report(node, [{ id: task.id, attempt: 1, progress: { done: 2 }, lines: ['two', 'snow \u2603'] }])
        await ledger.report(other, [{ id: task.id, attempt: 1, progress: { done: 9 }, lines: ['not mine'] }])
        await ledger.report(node, [{ id: task.id, attempt: 2, lines: ['not this attempt'] }])
        const row = await tasks.row(task.id)
        expect(row.logs).toEqual(['one', 'two', 'snow \u2603'])
        expect(JSON.parse(row.progress ?? '')).toEqual({ done: 2 })
        await settle(task, SUCCEEDED)
        await ledger.report(node, [{ id: task.id, attempt: 1, lines: ['too late'] }])
        expect((await tasks.row(task.id)).logs).toHaveLength(3)
      })
    })

    describe('rate limits', () => {
      async function limited(rateLimit: object | null): Promise<string> {
        const id = v7()
        await tasks.pool.query(
          `insert into consumers (id, queue, target, concurrency, timeout_ms, rate_limit)
           values ($1, 'default', '{"type":"noop"}', 1, 1000, $2)`,
          [id, rateLimit],
        )
        return id
      }

      test('no more tokens are granted than there are, whoever asks at once', async () => {
        const consumer = await limited({ count: 7, per: '1h' })
        const takes = await Promise.all([3, 3, 3, 3].map((count) => ledger.takeTokens(consumer, count)))
        expect(takes.reduce((sum, { granted }) => sum + granted, 0)).toBe(7)
        const more = await ledger.takeTokens(consumer, 1)
        expect(more.granted).toBe(0)
        expect(more.retryAfterMs).toBeGreaterThan(3_600_000 / 7 - 60_000)
        expect(more.retryAfterMs).toBeLessThanOrEqual(Math.ceil(3_600_000 / 7))
      })

      test('a consumer without a limit, or that is gone, grants all', async () => {
        for (const consumer of [await limited(null), v7()]) {
          expect(await ledger.takeTokens(consumer, 50)).toEqual({ granted: 50, retryAfterMs: 0 })
        }
      })
    })

    describe('locks', () => {
      test('a name belongs to one living node at a time', async () => {
        const other = await under.join()
        expect(await ledger.hold(node, 'out.csv')).toBe(true)
        expect(await ledger.hold(node, 'out.csv')).toBe(true)
        expect(await ledger.hold(other, 'out.csv')).toBe(false)
        await ledger.release(other, 'out.csv')
        expect(await ledger.hold(other, 'out.csv')).toBe(false)
        await ledger.release(node, 'out.csv')
        await ledger.release(node, 'out.csv')
        expect(await ledger.hold(other, 'out.csv')).toBe(true)
      })

      test('a dead node loses what it holds, and gets nothing more', async () => {
        const other = await under.join()
        expect(await ledger.hold(node, 'out.csv')).toBe(true)
        await killNode(tasks, node)
        expect(await ledger.hold(other, 'out.csv')).toBe(true)
        expect(await ledger.hold(node, 'out.csv')).toBe(false)
        expect(await ledger.hold(v7(), 'another.csv')).toBe(false)
      })
    })
  })
}
