import { expect, test } from 'bun:test'
import { pause, realClock } from '../../src/runtime/clock.ts'
import { makeQueue, reached, submit } from '../e2e/installation.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { callManagement, HAS_RABBITMQ } from '../support/rabbitmq.ts'
import type { RabbitMqServer } from '../support/rabbitmq-server.ts'
import { type Reply, startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { onRabbitMq } from './on-rabbitmq.ts'
import { SEED, seeded } from './seed.ts'
import { createTraffic, type Expected, trafficReply } from './traffic.ts'
import { judge, NOTHING_WRONG } from './verdict.ts'

/** At each kill so many more are seen by a target, which tells what ran when; and so many run on while RabbitMQ is away. */
const CALLS = 1_000
const HELD = 10

const onBroker = test.skipIf(!HAS_RABBITMQ)

/** Submits `count` tasks in batches, and gives their ids; each is accepted when its answer is there. */
async function fill(
  node: NodeProcess,
  queue: string,
  count: number,
  more: (n: number) => object = () => ({}),
): Promise<string[]> {
  const accepted: string[] = []
  while (accepted.length < count) {
    const tasks = Array.from({ length: Math.min(1_000, count - accepted.length) }, (_, index) => {
      const n = accepted.length + index
      return { queue, payload: { n }, ...more(n) }
    })
    const { ids } = await node.call<{ ids: string[] }>('POST', '/tasks/batch', tasks)
    accepted.push(...ids)
  }
  return accepted
}

/** Whether RabbitMQ has nothing of the queue, neither waiting nor in somebody's hand. */
async function isEmpty({ managementUrl }: RabbitMqServer, queue: string): Promise<boolean> {
  // It does not know everything at once when it has started.
  const found = await callManagement<{ messages?: number }>(managementUrl, 'GET', `/queues/%2F/${queue}`).catch(
    () => undefined,
  )
  return found?.messages === 0
}

onBroker.concurrent(
  'RabbitMQ that is killed in the middle of publishing 20,000 tasks and of their drain costs none of them, and none runs twice at once',
  async () => {
    await using on = await onRabbitMq()
    const held: (() => void)[] = []
    const isHeld = () => new Promise<Reply>((resolve) => void held.push(() => resolve({})))
    await using sink = await startSink({ reply: ({ path }) => (path === '/held' ? isHeld() : { delayMs: 30 }) })
    const { rabbit } = on
    const node = await on.start()
    const targets = {
      work: { type: 'noop', delay: '2ms' },
      called: { type: 'http', url: sink.url() },
      held: { type: 'http', url: sink.url('/held') },
    }
    for (const [queue, target] of Object.entries(targets)) {
      await node.call('PUT', `/queues/${queue}`, {})
      await node.call('POST', '/consumers', { queue, target, concurrency: 20, timeout: '10m' })
    }
    await on.declared(Object.keys(targets))
    const expected: Expected[] = []
    const call = async (queue: string, count: number) => {
      const begin = expected.length
      const keyOf = (n: number) => `call-${begin + n}`
      const ids = await fill(node, queue, count, (n) => ({ idempotencyKey: keyOf(n) }))
      for (const [n, id] of ids.entries())
        expected.push({ key: keyOf(n), status: 'succeeded', delivered: true, id, doubled: false })
    }
    const filling = fill(node, 'work', 20_000)
    for (const done of [CALLS / 10, CALLS + CALLS / 10]) {
      await call('held', HELD)
      await until(() => held.length === HELD, { timeoutMs: 150_000, what: 'those that are held to be at the sink' })
      await call('called', CALLS)
      const isInTheMiddle = async () =>
        ((await on.counts('called')).succeeded ?? 0) > done &&
        sink.requests.some(({ path, endedAt }) => path !== '/held' && !endedAt)
      await until(isInTheMiddle, { timeoutMs: 150_000, what: `${done} calls to be over, and others in hand` })
      await rabbit.kill()
      await pause(realClock, 5_000)
      await rabbit.start()
      // These are still running, and are sent again: whoever has them must not run them once more.
      await until(() => isEmpty(rabbit, 'held'), { timeoutMs: 150_000, what: 'what was sent again to be taken' })
      for (const answer of held.splice(0)) answer()
    }
    await filling
    expect(await on.allFinal('work', 240_000)).toEqual({ succeeded: 20_000 })
    expect(await on.allFinal('called')).toEqual({ succeeded: 2 * CALLS })
    expect(await on.allFinal('held')).toEqual({ succeeded: 2 * HELD })
    const accepted = 20_000 + expected.length
    expect(await node.call('GET', '/accounting')).toMatchObject({ accepted, unaccounted: 0, live: 0 })
    expect(await judge(on.installation.database.pool, expected, sink)).toEqual(NOTHING_WRONG)
    expect(sink.requests).toHaveLength(expected.length)
    // Nobody started anything anew: the node lived through it.
    expect(node.logged('node-joined')).toHaveLength(1)
    await node.stop()
  },
  600_000,
)

onBroker.concurrent(
  'without RabbitMQ a node accepts, says why nothing runs, and works when it appears',
  async () => {
    await using on = await onRabbitMq({ absent: true })
    const node = await on.start()
    await makeQueue(node, 'work')
    const id = await submit(node, { queue: 'work', payload: 1, target: { type: 'noop' } })
    const told = await until(
      async () => {
        const task = await node.call<{ waitingFor: { cause: string; detail: string } }>('GET', `/tasks/${id}`)
        return task.waitingFor.cause === 'broker-down' ? task.waitingFor : undefined
      },
      { what: 'the task to say that the broker is down', timeoutMs: 40_000 },
    )
    expect(told.detail).toContain('RabbitMQ')
    await on.rabbit.start()
    expect(await reached(node, id, ['succeeded'], 90_000)).toMatchObject({ attempt: 1 })
    await node.stop()
  },
  300_000,
)

onBroker.concurrent(
  'PROTOCOL 11: a RabbitMQ that lost its data is given again what it had',
  async () => {
    await using on = await onRabbitMq()
    const node = await on.start()
    await node.call('PUT', '/queues/work', {})
    await fill(node, 'work', 500)
    await until(async () => (await on.counts('work')).queued === 500, {
      what: 'all to be in the broker',
      timeoutMs: 60_000,
    })
    await on.rabbit.wipe()
    await node.call('POST', '/consumers', { queue: 'work', target: { type: 'noop' } })
    expect(await on.allFinal('work')).toEqual({ succeeded: 500 })
    expect(node.logged('broker-wiped')).toHaveLength(1)
    await node.stop()
  },
  300_000,
)

onBroker.concurrent(
  'a queue that is deleted under its consumer is made again, and its tasks are sent again',
  async () => {
    await using on = await onRabbitMq()
    const node = await on.start()
    await node.call('PUT', '/queues/work', {})
    await node.call('POST', '/consumers', { queue: 'work', target: { type: 'noop', delay: '5ms' }, concurrency: 5 })
    await fill(node, 'work', 2_000)
    await until(async () => ((await on.counts('work')).succeeded ?? 0) > 100, {
      what: 'some to have run',
      timeoutMs: 60_000,
    })
    await on.rabbit.rabbitmqctl('delete_queue', 'work')
    expect(await on.allFinal('work')).toEqual({ succeeded: 2_000 })
    await node.stop()
  },
  300_000,
)

onBroker.concurrent(
  'a memory alarm at RabbitMQ stops the sending and not the accepting, is told, and its end lets everything go on',
  async () => {
    await using on = await onRabbitMq()
    const node = await on.start()
    await makeQueue(node, 'work')
    await on.rabbit.rabbitmqctl('set_vm_memory_high_watermark', '0.000001')
    // The alarm reaches a connection with its next publish.
    const first = await submit(node, { queue: 'work', payload: 0, target: { type: 'noop' } })
    await until(() => node.logged('broker-blocked').length > 0, { what: 'the node to be told', timeoutMs: 60_000 })
    const id = await submit(node, { queue: 'work', payload: 1, target: { type: 'noop' } })
    const cause = async () => {
      const task = await node.call<{ waitingFor: { cause: string } | null }>('GET', `/tasks/${id}`)
      return task.waitingFor?.cause === 'broker-blocked'
    }
    await until(cause, { what: 'the task to say so', timeoutMs: 40_000 })
    await on.rabbit.rabbitmqctl('set_vm_memory_high_watermark', '0.4')
    for (const one of [first, id]) expect(await reached(node, one, ['succeeded'], 90_000)).toMatchObject({ attempt: 1 })
    await node.stop()
  },
  300_000,
)

// Not beside the others: together they would want more connections than Postgres has by default.
onBroker(
  `two dispatchers and three workers send and run nothing twice, also when one of each is killed (seed ${SEED})`,
  async () => {
    await using on = await onRabbitMq()
    await using sink = await startSink()
    sink.reply = trafficReply(sink)
    const key = { LONGSHORE_ADMIN_KEY: 'ls_several_nodes_admin_key_for_this_test' }
    const front = await on.start({ ...key, LONGSHORE_ROLES: 'api,dispatcher,scheduler' })
    const others = await Promise.all(
      ['dispatcher,worker', 'worker', 'worker'].map((roles) => on.spawn({ ...key, LONGSHORE_ROLES: roles })),
    )
    await makeQueue(front, 'work', { base: '100ms', maxAttempts: 10 })
    const traffic = createTraffic({ sink, queue: 'work', random: seeded(SEED) })
    await traffic.send(front, 150, AbortSignal.timeout(20_000))
    await others[0]?.kill()
    await others[1]?.kill()
    await traffic.send(front, 100, AbortSignal.timeout(30_000))
    await traffic.finish(front)
    const { pool } = on.installation.database
    await on.quiet(180_000)
    expect(await judge(pool, traffic.expected, sink)).toEqual(NOTHING_WRONG)
    await Promise.all([front.stop(), others[2]?.stop()])
  },
  400_000,
)
