import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { createInProcessBroker } from '../../src/broker/in-process.ts'
import { claimedMessage } from '../../src/broker/wire-form.ts'
import { fusedIntake } from '../../src/execution/intake.ts'
import { startWorker } from '../../src/execution/worker.ts'
import { bucketOf, type RateLimit } from '../../src/task/topology/rate-limit.ts'
import {
  CountedClock,
  claimedTask,
  consumer,
  heldExecutor,
  heldSettler,
  turns,
  unlimited,
} from '../support/services.ts'

/** The row that all nodes share, by the clock of the test. */
function sharedBucket(clock: CountedClock, limit: RateLimit) {
  const { capacity, perMs } = bucketOf(limit)
  let tokens = capacity
  let at = 0
  const asked: number[] = []
  return {
    asked,
    async take(_: string, count: number) {
      asked.push(count)
      tokens = Math.min(capacity, tokens + (clock.now() - at) * perMs)
      at = clock.now()
      const granted = Math.min(count, Math.floor(tokens))
      tokens -= granted
      return { granted, retryAfterMs: granted === count ? 0 : Math.ceil(Math.max(0, 1 - tokens) / perMs) }
    },
  }
}

/** Nodes with one consumer each, whose tasks end at once, and a line that is never empty. */
function limited(rateLimit: RateLimit, nodes = 1, concurrency = 10) {
  const clock = new CountedClock()
  const bucket = sharedBucket(clock, rateLimit)
  const starts: number[] = []
  const all = Array.from({ length: nodes }, () => {
    const broker = createInProcessBroker()
    const executor = heldExecutor()
    const worker = startWorker(consumer({ concurrency, rateLimit }), {
      intake: fusedIntake(broker),
      executor,
      settler: heldSettler(),
      clock,
      mayStart: () => true,
      reported: () => undefined,
      ...unlimited,
      takeTokens: bucket.take,
    })
    return { broker, executor, worker }
  })
  async function run(ms: number, step = 10): Promise<void> {
    for (let passed = 0; passed < ms; passed += step) {
      for (const { broker, executor } of all) {
        await broker.publish(Array.from({ length: broker.room('work') }, () => claimedMessage(claimedTask())))
        await turns(4)
        for (const id of executor.running()) {
          starts.push(clock.now())
          executor.end(id)
        }
        await turns(4)
      }
      clock.advance(step)
    }
  }
  async function stop(): Promise<void> {
    for (const { worker } of all) worker.quiet()
    // The last step of the clock may have started some.
    await turns(4)
    for (const { executor } of all) for (const id of executor.running()) executor.end(id)
    await Promise.all(all.map(({ worker }) => worker.idle()))
  }
  return { clock, bucket, starts, all, run, stop }
}

test('three nodes together keep the rate in every stretch of time, and use what it allows', async () => {
  const { starts, run, stop } = limited({ count: 20, per: '1s', burst: 5 }, 3)
  await run(5_000)
  for (const [index, start] of starts.entries()) {
    const inASecond = starts.slice(index).filter((at) => at < start + 1_000).length
    expect(inASecond).toBeLessThanOrEqual(25)
  }
  expect(starts.length).toBeGreaterThanOrEqual(90)
  expect(starts.length).toBeLessThanOrEqual(106)
  await stop()
})

test('whatever the limit, no stretch of time sees more starts than the burst and what time brings', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 1, max: 30 }),
      fc.integer({ min: 1, max: 3 }),
      async (count, burst, nodes) => {
        const { starts, run, stop } = limited({ count, per: '1s', burst }, nodes)
        await run(1_500, 25)
        for (const [index, start] of starts.entries()) {
          const since = starts.length - index
          const last = starts.at(-1) ?? start
          expect(since).toBeLessThanOrEqual(burst + ((last - start) * count) / 1_000 + 1)
        }
        await stop()
      },
    ),
    { numRuns: 25 },
  )
})

test('a quick rate asks some ten times a second, not once a task', async () => {
  const { bucket, starts, run, stop } = limited({ count: 1_000, per: '1s' }, 1, 200)
  await run(2_000)
  expect(starts.length).toBeGreaterThan(1_000)
  expect(bucket.asked.length).toBeLessThan(60)
  await stop()
})

test('while the next token is far away nothing is held, so that tasks stay where every node can take them', async () => {
  const { clock, all, starts, run, stop } = limited({ count: 1, per: '1m' })
  await run(1_000)
  expect(starts).toHaveLength(1)
  const [node] = all
  expect(node?.broker.room('work')).toBe(0)
  await run(5_000)
  expect(node?.worker.hands()).toEqual([])
  expect(Date.parse(node?.worker.state().limitedUntil ?? '') - Date.now()).toBeGreaterThan(40_000)
  await turns()
  clock.advance(53_600)
  expect(node?.broker.room('work')).toBe(1)
  await run(1_500)
  expect(starts).toHaveLength(2)
  await stop()
})

test('a limit that is taken away lets everything start, and a new one holds', async () => {
  const { all, starts, run, stop } = limited({ count: 1, per: '1h' })
  await run(500)
  const [node] = all
  const { rateLimit: _, ...order } = node?.worker.order ?? consumer()
  node?.worker.update(order)
  await run(100)
  const free = starts.length
  expect(free).toBeGreaterThan(10)
  node?.worker.update({ ...order, rateLimit: { count: 1, per: '1h' } })
  await run(3_000)
  // What was held already goes back or waits; nothing more starts without a token.
  expect(starts.length - free).toBeLessThanOrEqual(1)
  await stop()
})
