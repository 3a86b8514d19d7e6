import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { readAccounting } from '../../../../src/store/accounting.ts'
import { claimDeliveries } from '../../../../src/store/tasks/claim/claim-deliveries.ts'
import { claimForBroker } from '../../../../src/store/tasks/claim/claim-for-broker.ts'
import { judgeDeadDeliveries } from '../../../../src/store/tasks/dead-letters/dead-letters.ts'
import { insertTasks } from '../../../../src/store/tasks/insert/insert.ts'
import { settleTasks } from '../../../../src/store/tasks/settle.ts'
import type { Claim, ClaimAnswer, DeliveryClaim } from '../../../../src/task/ledger.ts'
import { attemptOf, type ClaimedTask } from '../../../../src/task/task.ts'
import { ENGINES } from '../../../support/database.ts'
import { addressed, addressing, copiesOf, fanOut, makeExchange } from '../../../support/exchanges.ts'
import { AT_ONCE, DEAD, miscounted, newTask, SUCCEEDED, type TaskLedger, taskLedger } from '../../../support/tasks.ts'

describe.each(ENGINES)('21: copies of fanned-out tasks on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(async () => {
    const wrong = await miscounted(ledger.pool)
    const { unaccounted } = await readAccounting(ledger.test.database.db)
    await ledger.clear()
    expect([wrong, unaccounted]).toEqual([[], 0])
  })
  afterAll(() => ledger.test.drop())

  const judge = (queue: string, deliveries: DeliveryClaim[], changes: Partial<Claim> = {}) =>
    claimDeliveries(ledger.pool, { claimId: v7(), node: ledger.node, queue, deliveries, ...changes })
  const kinds = (answers: ClaimAnswer[]) => answers.map(({ kind }) => kind)
  const taken = (answer: ClaimAnswer | undefined): ClaimedTask => {
    if (answer?.kind !== 'claimed') throw new Error(`not claimed, but ${answer?.kind}`)
    return answer.task
  }

  /** A queue that the broker has bound, and the rows have not. */
  const makeLate = () =>
    ledger.pool.query(
      `insert into queues (name, retry, retention) values ('late', '{"maxAttempts": 3}', '{}') on conflict do nothing`,
    )

  /** A fan-out to `mail` and `audit`. */
  async function sent(fields: Parameters<typeof addressed>[1] = {}) {
    const { rowCount } = await ledger.pool.query(`select from exchanges where name = 'orders'`)
    if (rowCount === 0) await makeExchange(ledger, 'orders', 'fanout', { mail: [''], audit: [''] })
    await makeLate()
    const { id, children } = await fanOut(ledger, addressed('orders', fields))
    return { id, mail: children.mail as string, audit: children.audit as string }
  }

  /** A task that went to the one queue of its exchange, on its way through that exchange. */
  async function single() {
    await makeExchange(ledger, 'files', 'fanout', { csv: [''] })
    await makeLate()
    const { id } = await fanOut(ledger, addressed('files', { payload: '{"n":1.0}' }))
    await claimForBroker(ledger.pool, {
      queue: 'csv',
      node: ledger.node,
      publishNo: 1,
      limit: 1,
      window: 10,
      order: 'due',
    })
    return { id, delivery: { kind: 'task' as const, id, attempt: 1 } }
  }

  test('each queue’s copy begins the first attempt of its own child, once', async () => {
    const { id, mail, audit } = await sent({ payload: '{"n":1.0}' })
    const [first, twin] = await judge('mail', copiesOf(id, id))
    expect(kinds([first, twin] as ClaimAnswer[])).toEqual(['claimed', 'duplicate'])
    expect(taken(first)).toMatchObject({ id: mail, queue: 'mail', attempt: 1, parentId: id, payload: '{"n":1.0}' })
    expect(await ledger.row(mail)).toMatchObject({ status: 'running', attempt: 1, node: ledger.node })
    expect(kinds(await judge('mail', copiesOf(id), { node: await ledger.join() }))).toEqual(['duplicate'])
    expect(taken((await judge('audit', copiesOf(id)))[0]).id).toBe(audit)
  })

  test('a copy and the child’s own message in one batch begin its attempt once, in whichever order', async () => {
    for (const order of ['own first', 'copy first']) {
      const { id, mail } = await sent()
      const both: DeliveryClaim[] = [{ kind: 'task', id: mail, attempt: 1 }, ...copiesOf(id)]
      const claimId = v7()
      for (let time = 1; time <= 2; time++) {
        const answers = await judge('mail', order === 'own first' ? both : both.reverse(), { claimId })
        expect(kinds(answers).sort()).toEqual(['claimed', 'duplicate'])
        expect(taken(answers.find(({ kind }) => kind === 'claimed')).id).toBe(mail)
      }
    }
  })

  test('an attempt that is told twice in one batch of outcomes counts once for its parent', async () => {
    const { id } = await sent()
    const task = taken((await judge('mail', copiesOf(id)))[0])
    const settlement = { ...attemptOf(task), outcome: SUCCEEDED }
    const [first, second] = await settleTasks(ledger.pool, ledger.node, [settlement, { ...settlement }], () => AT_ONCE)
    expect([first, second]).toMatchObject([
      { id: task.id, late: false, status: 'succeeded' },
      { id: task.id, late: true },
    ])
    expect(await ledger.row(id)).toMatchObject({ children_total: 2, children_succeeded: 1 })
  })

  test('2: the same claim again gives the same children, adopted ones as well', async () => {
    const { id, mail } = await sent()
    const claimId = v7()
    await judge('mail', copiesOf(id), { claimId })
    expect(await judge('mail', copiesOf(id), { claimId })).toMatchObject([{ kind: 'claimed', task: { id: mail } }])
    const adopted = taken((await judge('late', copiesOf(id), { claimId }))[0])
    expect(await judge('late', copiesOf(id), { claimId })).toMatchObject([
      { kind: 'claimed', task: { id: adopted.id } },
    ])
    expect(kinds(await judge('late', copiesOf(id)))).toEqual(['duplicate'])
  })

  test('a queue that was paused meanwhile takes the child back to the line, with no attempt spent', async () => {
    const { id, mail } = await sent()
    await ledger.pool.query(`update queues set paused = true where name = 'mail'`)
    expect(kinds(await judge('mail', copiesOf(id)))).toEqual(['duplicate'])
    expect(await ledger.row(mail)).toMatchObject({ status: 'pending', attempt: 0 })
  })

  test('a copy that arrives without its child inserts it, counts it, and reopens the parent', async () => {
    const { id, mail, audit } = await sent({ target: '{"type":"noop"}', timeoutMs: 5, type: 'order', routingKey: 'eu' })
    await ledger.pool.query(`update tasks set sealed = true, status = 'running' where id = $1`, [id])
    for (const queue of ['mail', 'audit']) await ledger.settle(taken((await judge(queue, copiesOf(id)))[0]), SUCCEEDED)
    expect(await ledger.status(id)).toBe('succeeded')
    const task = taken((await judge('late', copiesOf(id, id)))[0])
    expect(await ledger.row(task.id)).toMatchObject({
      queue: 'late',
      parent_id: id,
      origin: 'child',
      status: 'running',
      attempt: 1,
      target: '{"type":"noop"}',
      timeout_ms: 5,
      type: 'order',
      routing_key: 'eu',
      exchange: null,
      max_attempts: 3,
    })
    expect(await ledger.row(id)).toMatchObject({ status: 'running', children_total: 3, finished_at: null })
    await ledger.settle(task, SUCCEEDED)
    expect(await ledger.row(id)).toMatchObject({ status: 'succeeded', children_succeeded: 3 })
    expect([mail, audit]).not.toContain(task.id)
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 4, succeeded: 4 })
  })

  test('a copy that comes before the publish is known to be confirmed is taken, too', async () => {
    const { id } = await sent()
    const task = taken((await judge('late', copiesOf(id)))[0])
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', sealed: false, children_total: 3 })
    await ledger.settle(task, SUCCEEDED)
    expect(await ledger.row(id)).toMatchObject({ status: 'pending', children_succeeded: 1 })
  })

  test('a parent above a reopened one reopens, too', async () => {
    const above = await ledger.insert()
    const { id } = await sent({ parentId: above })
    await ledger.run(above, SUCCEEDED)
    await ledger.pool.query(`update tasks set sealed = true, status = 'running' where id = $1`, [id])
    for (const queue of ['mail', 'audit']) await ledger.settle(taken((await judge(queue, copiesOf(id)))[0]), SUCCEEDED)
    expect(await ledger.status(above)).toBe('succeeded')
    const task = taken((await judge('late', copiesOf(id)))[0])
    expect(await ledger.row(above)).toMatchObject({ status: 'running', children_succeeded: 0 })
    await ledger.settle(task, DEAD)
    expect(await ledger.row(above)).toMatchObject({ status: 'dead', children_dead: 1 })
  })

  test('many copies of the same parents on many nodes make each child once', async () => {
    const parents: string[] = []
    for (let i = 0; i < 12; i++) parents.push((await sent()).id)
    const nodes = await Promise.all(Array.from({ length: 4 }, () => ledger.join()))
    const answers = await Promise.all(
      nodes.flatMap((node) =>
        ['late', 'mail', 'audit'].map((queue) => judge(queue, copiesOf(...parents, ...parents), { node })),
      ),
    )
    const claimed = answers.flat().flatMap((answer) => (answer.kind === 'claimed' ? [answer.task] : []))
    expect(claimed).toHaveLength(3 * parents.length)
    expect(new Set(claimed.map(({ id }) => id)).size).toBe(claimed.length)
    for (const parent of parents) expect(await ledger.row(parent)).toMatchObject({ children_total: 3 })
  })

  test('copies of a cancelled parent are done with; those of no task of an exchange are unknown', async () => {
    const { id } = await sent()
    await ledger.cancel(id)
    for (const queue of ['mail', 'late']) expect(kinds(await judge(queue, copiesOf(id)))).toEqual(['duplicate'])
    const plain = await ledger.insert()
    expect(kinds(await judge('late', copiesOf(plain, v7())))).toEqual(['unknown', 'unknown'])
    expect(await ledger.row(plain)).toMatchObject({ children_total: 0 })
  })

  test('a task of the one queue of its exchange is begun there, and what another queue got of it becomes its child', async () => {
    const { id, delivery } = await single()
    const answers = await judge('late', [delivery, { ...delivery }])
    expect(kinds(answers).sort()).toEqual(['claimed', 'duplicate'])
    const copy = taken(answers.find(({ kind }) => kind === 'claimed'))
    expect(copy).toMatchObject({ queue: 'late', parentId: id, payload: '{"n":1.0}', attempt: 1 })
    expect(kinds(await judge('late', [delivery]))).toEqual(['duplicate'])
    const own = taken((await judge('csv', [delivery]))[0])
    expect(own).toMatchObject({ id, queue: 'csv', attempt: 1 })
    await ledger.settle(own, SUCCEEDED)
    expect(await ledger.row(id)).toMatchObject({ status: 'running', sealed: true, children_total: 1 })
    await ledger.settle(copy, SUCCEEDED)
    expect(await ledger.row(id)).toMatchObject({ status: 'succeeded', children_succeeded: 1 })
  })

  test('such a task that has succeeded already reopens for the child', async () => {
    const { id, delivery } = await single()
    await ledger.settle(taken((await judge('csv', [delivery]))[0]), SUCCEEDED)
    expect(await ledger.status(id)).toBe('succeeded')
    const copy = taken((await judge('late', [delivery]))[0])
    expect(await ledger.row(id)).toMatchObject({ status: 'running', node: null, finished_at: null })
    await ledger.settle(copy, DEAD)
    expect(await ledger.row(id)).toMatchObject({ status: 'dead', children_dead: 1 })
  })

  test('a task that is not of an exchange is begun from its own queue only', async () => {
    await ledger.queue('other')
    const id = await ledger.insert()
    await ledger.pool.query(`update tasks set status = 'queued'`)
    expect(kinds(await judge('other', [{ kind: 'task', id, attempt: 1 }]))).toEqual(['duplicate'])
    expect(await ledger.status(id)).toBe('queued')
  })

  test('children that somebody submits for such a task are not taken for what its queues got', async () => {
    const { id, delivery } = await single()
    const own = taken((await judge('csv', [delivery]))[0])
    const follow = newTask({ queue: 'late', parentId: id, origin: 'child' })
    const alike = addressed('files', { parentId: id, origin: 'child' })
    await insertTasks(ledger.pool, ledger.node, [follow, alike], { addressing: addressing('rabbitmq') })
    await ledger.pool.query(`update tasks set status = 'queued' where parent_id = $1`, [id])
    const copy = taken((await judge('late', [delivery]))[0])
    expect([follow.id, alike.id]).not.toContain(copy.id)
    await ledger.settle(own, SUCCEEDED)
    expect(await ledger.row(id)).toMatchObject({ status: 'running', children_total: 3 })
  })

  test('15: a rejected copy makes the child of its queue dead, and of an exchange’s one task what that queue got of it', async () => {
    const { id, mail } = await sent()
    const dead = (of: Parameters<typeof judgeDeadDeliveries>[2][number]['of'], queue: string) => ({
      of,
      queue,
      end: 'rejected' as const,
      reason: 'A consumer rejected it',
      stray: {
        id: v7(),
        payload: '1',
        type: null,
        priority: 0,
        traceparent: null,
        message: { exchange: '', routingKey: '', properties: {}, headers: {} },
      },
    })
    await judgeDeadDeliveries(ledger.pool, ledger.node, [dead({ kind: 'copy', parentId: id }, 'mail')])
    expect(await ledger.row(mail)).toMatchObject({ status: 'dead', attempt: 1, error: 'A consumer rejected it' })
    expect(await ledger.row(id)).toMatchObject({ children_dead: 1 })

    const { id: file, delivery } = await single()
    const copy = taken((await judge('late', [delivery]))[0])
    await ledger.settle(copy, DEAD)
    await judgeDeadDeliveries(ledger.pool, ledger.node, [dead(delivery, 'late')])
    expect(await ledger.row(file)).toMatchObject({ status: 'queued', attempt: 0, children_dead: 1 })
    await judgeDeadDeliveries(ledger.pool, ledger.node, [dead(delivery, 'csv')])
    expect(await ledger.row(file)).toMatchObject({ status: 'dead', attempt: 1 })
  })
})
