import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { readAccounting } from '../../../../src/store/accounting.ts'
import { insertTasks } from '../../../../src/store/tasks/insert/insert.ts'
import { readTask } from '../../../../src/store/tasks/read/read.ts'
import { removeTasks } from '../../../../src/store/tasks/remove.ts'
import { deleteQueue, queueFigures } from '../../../../src/store/topology/queues.ts'
import type { NewTask } from '../../../../src/task/task.ts'
import { ENGINES } from '../../../support/database.ts'
import { addressed, addressing, bind, fanOut, makeExchange, send, unbind } from '../../../support/exchanges.ts'
import { connect, miscounted, newTask, type TaskLedger, taskLedger } from '../../../support/tasks.ts'
import { until } from '../../../support/until.ts'

describe.each(ENGINES)('tasks addressed to exchanges on %s', (engine) => {
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

  const exchange = (
    ...[name, type, bindings]: Parameters<typeof makeExchange> extends [unknown, ...infer R] ? R : never
  ) => makeExchange(ledger, name, type, bindings)

  test('21: several bound queues: a parent that no queue has, and a child for each of them, in one commit', async () => {
    await exchange('orders', 'topic', { mail: ['orders.*'], audit: ['#'], stock: ['orders.us'] })
    const { id, children, created } = await fanOut(
      ledger,
      addressed('orders', { routingKey: 'orders.eu', payload: '{"a":1.0}', type: 'order', priority: 7, timeoutMs: 5 }),
      'in-process',
    )
    expect(Object.keys(children)).toEqual(['audit', 'mail'])
    expect(created.placed).toMatchObject({ queue: 'exchange/orders', status: 'running', sealed: true })
    expect(await ledger.row(id)).toMatchObject({
      queue: 'exchange/orders',
      exchange: 'orders',
      routing_key: 'orders.eu',
      status: 'running',
      sealed: true,
      node: null,
      attempt: 0,
      children_total: 2,
      origin: 'api',
    })
    for (const [queue, child] of Object.entries(children))
      expect(await ledger.row(child)).toMatchObject({
        queue,
        parent_id: id,
        status: 'pending',
        origin: 'child',
        payload: '{"a":1.0}',
        type: 'order',
        priority: 7,
        timeout_ms: 5,
        max_attempts: 3,
        exchange: null,
        routing_key: 'orders.eu',
        idempotency_key: null,
      })
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 3, live: 3 })
    expect((await queueFigures(ledger.test.database.db)).get('orders')).toBeUndefined()
  })

  test('with RabbitMQ the parent waits to be published, and its children are queued by that', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    const { id, children } = await fanOut(ledger, addressed('orders'))
    expect(await ledger.row(id)).toMatchObject({
      status: 'pending',
      sealed: false,
      started_at: null,
      children_total: 2,
    })
    for (const child of Object.values(children)) expect(await ledger.status(child)).toBe('queued')
    for (const queue of ['mail', 'audit', 'exchange/orders']) expect(await ledger.claim(10, { queue })).toEqual([])
  })

  test.each(['in-process', 'rabbitmq'] as const)(
    'one bound queue: the task itself goes there, and says where it was addressed to (%s)',
    async (broker) => {
      await exchange('files', 'topic', { 'ftp.csv': ['ftp.csv'], 'ftp.xml': ['ftp.xml'] })
      const { id, children, created } = await fanOut(ledger, addressed('files', { routingKey: 'ftp.csv' }), broker)
      expect(children).toEqual({})
      expect(created.placed).toMatchObject({ queue: 'ftp.csv', status: 'pending' })
      expect(await ledger.row(id)).toMatchObject({
        queue: 'ftp.csv',
        status: 'pending',
        exchange: 'files',
        routing_key: 'ftp.csv',
        children_total: 0,
        max_attempts: 3,
      })
      expect(await ledger.claim(10, { queue: 'ftp.csv' })).toMatchObject([{ id, attempt: 1 }])
    },
  )

  test('an unknown exchange, and a routing key that nothing is bound for, are refused, and harm nobody else', async () => {
    await exchange('orders', 'direct', { mail: ['a'], audit: ['a'] })
    const answers = await send(ledger, [
      addressed('orders', { routingKey: 'a' }),
      addressed('nowhere', { routingKey: 'a' }),
      addressed('orders', { routingKey: 'b' }),
      newTask(),
    ])
    expect(answers).toMatchObject([
      { kind: 'created' },
      { kind: 'refused', code: 'unknown-exchange', field: 'exchange' },
      { kind: 'refused', code: 'unroutable', field: 'routingKey' },
      { kind: 'created' },
    ])
  })

  test('a batch is stored as a whole or not at all', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    const batch = (tasks: NewTask[]) =>
      insertTasks(ledger.pool, ledger.node, tasks, { allOrNothing: true, addressing: addressing('rabbitmq') })
    const bad = [addressed('orders'), newTask(), addressed('nowhere')]
    expect(await batch(bad)).toMatchObject([{ kind: 'created' }, { kind: 'created' }, { kind: 'refused' }])
    expect((await ledger.pool.query('select from tasks')).rowCount).toBe(0)
    const good = [addressed('orders'), newTask(), addressed('orders')]
    expect(await batch(good)).toMatchObject([{ kind: 'created' }, { kind: 'created' }, { kind: 'created' }])
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 7, live: 7 })
  })

  test('a binding counts from its commit on, and no longer than it is there', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    expect(Object.keys((await fanOut(ledger, addressed('orders'))).children)).toEqual(['audit', 'mail'])
    await ledger.queue('stock')
    await bind(ledger, 'orders', 'stock')
    await unbind(ledger, 'orders', 'mail')
    expect(Object.keys((await fanOut(ledger, addressed('orders'))).children)).toEqual(['audit', 'stock'])
    await unbind(ledger, 'orders', 'stock')
    expect((await fanOut(ledger, addressed('orders'))).created.placed?.queue).toBe('audit')
  })

  test('a bound queue that is deleted while the task is stored gets no child, and is not waited for', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    // The deletion holds the table: the task was routed before it, and is stored after it.
    const blocker = await connect(ledger.test)
    await blocker.query('begin; lock table tasks in share row exclusive mode')
    const sent = fanOut(ledger, addressed('orders'))
    // Of this database: tests beside this one wait for locks of theirs.
    const waiting = `select from pg_locks l join pg_database d on d.oid = l.database
      where not l.granted and d.datname = current_database()`
    await until(async () => (await blocker.query(waiting)).rowCount === 1, { what: 'the insert to wait for the table' })
    await blocker.query(`delete from queues where name = 'mail'`)
    await blocker.query('commit')
    await blocker.end()
    const { id, children } = await sent
    expect(Object.keys(children)).toEqual(['audit'])
    expect(await ledger.row(id)).toMatchObject({ children_total: 1, status: 'pending' })
    expect(await deleteQueue(ledger.test.database.db, 'audit').catch(String)).toBe('has-live-tasks')
  })

  test('22: an idempotency key is known by its exchange, wherever its bindings lead by then', async () => {
    await exchange('orders', 'fanout', { mail: [''] })
    const keyed = (fields: Partial<NewTask> = {}) => addressed('orders', { idempotencyKey: 'k', ...fields })
    const { id: first } = await fanOut(ledger, keyed())
    await ledger.queue('audit')
    await bind(ledger, 'orders', 'audit')
    expect(await send(ledger, [keyed(), keyed()])).toEqual([
      { kind: 'existing', id: first },
      { kind: 'existing', id: first },
    ])
    expect(await send(ledger, [keyed({ fingerprint: 'other' })])).toMatchObject([
      { kind: 'refused', code: 'idempotency-mismatch' },
    ])
    const { id: second } = await fanOut(ledger, keyed({ idempotencyKey: 'k2' }))
    expect(await send(ledger, [keyed({ idempotencyKey: 'k2' })])).toEqual([{ kind: 'existing', id: second }])
    // Where a key stands beside what goes to the same queue without the exchange, that one counts, too.
    expect(await send(ledger, [newTask({ queue: 'mail', idempotencyKey: 'k', fingerprint: 'plain' })])).toMatchObject([
      { kind: 'refused', code: 'idempotency-mismatch' },
    ])
    await exchange('others', 'fanout', { mail: [''] })
    const [other] = await send(ledger, [addressed('others', { idempotencyKey: 'k' })])
    expect(other).toMatchObject({ kind: 'refused', code: 'idempotency-mismatch' })
    expect(JSON.stringify(other)).toContain('on queue \\"mail\\"')
  })

  test('the same key from many callers at once is one fan-out, and a key whose task is deleted is free again', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    const keyed = () => addressed('orders', { idempotencyKey: 'k' })
    const answers = (await Promise.all(Array.from({ length: 20 }, () => send(ledger, [keyed()])))).flat()
    expect(answers.filter(({ kind }) => kind === 'created')).toHaveLength(1)
    expect(new Set(answers.map((answer) => 'id' in answer && answer.id)).size).toBe(1)
    await ledger.pool.query(`update tasks set status = 'cancelled', finished_at = now()`)
    await ledger.pool.query('update tasks set children_dead = children_total')
    const { rows } = await ledger.pool.query<{ id: string }>('select id from tasks order by id desc')
    for (const { id } of rows) await removeTasks(ledger.pool, ledger.node, [id])
    expect(await send(ledger, [keyed()])).toMatchObject([{ kind: 'created' }])
  })

  test('22: the same submission again, as after a lost commit, gives what it stored', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    const task = addressed('orders')
    const { children } = await fanOut(ledger, task)
    const [again] = await send(ledger, [task])
    expect(again).toMatchObject({
      kind: 'created',
      id: task.id,
      placed: { queue: 'exchange/orders', status: 'pending' },
    })
    expect(again?.kind === 'created' && again.placed?.children.map(({ id }) => id).sort()).toEqual(
      Object.values(children).sort(),
    )
    expect(await readAccounting(ledger.test.database.db)).toMatchObject({ accepted: 3, live: 3 })
  })

  test('a fan-out can be a child, and is no parent of anything but what its queues got', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    const above = await ledger.insert()
    const { id } = await fanOut(ledger, addressed('orders', { parentId: above, origin: 'child' }))
    expect(await ledger.row(above)).toMatchObject({ children_total: 1 })
    const [refused] = await insertTasks(ledger.pool, ledger.node, [newTask({ parentId: id })])
    expect(refused).toMatchObject({ kind: 'refused', code: 'parent-final' })
  })

  test('delays hold for the children as well', async () => {
    await exchange('orders', 'fanout', { mail: [''], audit: [''] })
    const { id, children, created } = await fanOut(ledger, addressed('orders', { delayMs: 60_000 }), 'in-process')
    expect(created.delayMs).toBeGreaterThan(59_000)
    const { due_at: due } = await ledger.row(id)
    for (const child of Object.values(children)) expect((await readTask(ledger.pool, child))?.due_at).toBe(due)
    expect(await ledger.claim(10, { queue: 'mail' })).toEqual([])
  })
})
