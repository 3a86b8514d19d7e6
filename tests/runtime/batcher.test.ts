import { describe, expect, test } from 'bun:test'
import { createBatcher } from '../../src/runtime/batcher.ts'
import { Problem } from '../../src/runtime/errors.ts'
import { until } from '../support/until.ts'

/** A `run` that records its batches and waits for `release` before each answer. */
function gated() {
  const batches: number[][] = []
  const gates: (() => void)[] = []
  const run = async (batch: number[]) => {
    batches.push(batch)
    await new Promise<void>((resolve) => gates.push(resolve))
    return batch.map((item) => item * 10)
  }
  return { batches, run, release: () => gates.shift()?.() }
}

describe('batcher', () => {
  test('callers of the same turn share the first batch', async () => {
    const batches: number[][] = []
    const batcher = createBatcher<number, number>({
      run: async (batch) => {
        batches.push(batch)
        return batch
      },
      maxBatch: 100,
    })
    expect(await Promise.all([1, 2, 3].map((item) => batcher.add(item)))).toEqual([1, 2, 3])
    expect(batches).toEqual([[1, 2, 3]])
  })

  test('what comes while a batch is in flight gathers, in order, and goes when the lane is free', async () => {
    const { batches, run, release } = gated()
    const batcher = createBatcher<number, number>({ run, maxBatch: 3 })
    const first = batcher.add(1)
    await until(() => batches.length === 1)
    const rest = [2, 3, 4, 5].map((item) => batcher.add(item))
    expect(batches).toEqual([[1]])
    release()
    expect(await first).toBe(10)
    await until(() => batches.length === 2)
    release()
    await until(() => batches.length === 3)
    release()
    expect(await Promise.all(rest)).toEqual([20, 30, 40, 50])
    expect(batches).toEqual([[1], [2, 3, 4], [5]])
  })

  test('as many batches are in flight as there are lanes', async () => {
    const { batches, run, release } = gated()
    const batcher = createBatcher<number, number>({ run, maxBatch: 1, lanes: 2 })
    const all = [1, 2, 3].map((item) => batcher.add(item))
    await until(() => batches.length === 2)
    expect(batches).toEqual([[1], [2]])
    release()
    release()
    await until(() => batches.length === 3)
    release()
    expect(await Promise.all(all)).toEqual([10, 20, 30])
  })

  test('an error in the answer fails that item only', async () => {
    const batcher = createBatcher<number, number>({
      run: async (batch) => batch.map((item) => (item === 2 ? new Error('two is bad') : item)),
      maxBatch: 10,
    })
    const settled = await Promise.allSettled([1, 2, 3].map((item) => batcher.add(item)))
    expect(settled.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
  })

  test('a failing batch is repeated in halves, so that one bad item fails one caller', async () => {
    const sizes: number[] = []
    const batcher = createBatcher<number, number>({
      run: async (batch) => {
        sizes.push(batch.length)
        if (batch.includes(6)) throw new Error('six is bad')
        return batch
      },
      maxBatch: 100,
      splitOnError: (error) => error instanceof Error && error.message === 'six is bad',
    })
    const settled = await Promise.allSettled([1, 2, 3, 4, 5, 6, 7, 8].map((item) => batcher.add(item)))
    expect(settled.flatMap((end, index) => (end.status === 'rejected' ? [index + 1] : []))).toEqual([6])
    expect(sizes).toEqual([8, 4, 4, 2, 1, 1, 2])
  })

  test('an error that is nobody’s fault fails the whole batch at once, and the next batch goes on', async () => {
    let calls = 0
    const batcher = createBatcher<number, number>({
      run: async (batch) => {
        calls += 1
        if (calls === 1) throw new Error('the database is away')
        return batch
      },
      maxBatch: 100,
    })
    const settled = await Promise.allSettled([1, 2].map((item) => batcher.add(item)))
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'rejected'])
    expect(calls).toBe(1)
    expect(await batcher.add(3)).toBe(3)
  })

  test('a full backlog refuses with 503 and loses nothing that was taken', async () => {
    const { batches, run, release } = gated()
    const batcher = createBatcher<number, number>({ run, maxBatch: 10, maxWaiting: 2 })
    const first = batcher.add(1)
    await until(() => batches.length === 1)
    const taken = [2, 3].map((item) => batcher.add(item))
    const refused = await batcher.add(4).catch((error: unknown) => error)
    expect(refused).toBeInstanceOf(Problem)
    expect((refused as Problem).status).toBe(503)
    release()
    await until(() => batches.length === 2)
    release()
    expect(await Promise.all([first, ...taken])).toEqual([10, 20, 30])
  })

  test('heavy items are spread over batches, and one that is too heavy for a batch goes alone', async () => {
    const batches: number[][] = []
    const batcher = createBatcher<number, number>({
      run: async (batch) => {
        batches.push(batch)
        return batch
      },
      maxBatch: 100,
      weigh: (item) => item,
      maxBatchWeight: 10,
    })
    await Promise.all([4, 4, 4, 50, 1].map((item) => batcher.add(item)))
    expect(batches).toEqual([[4, 4], [4], [50], [1]])
  })

  test('weight in the backlog is bounded', async () => {
    const { batches, run, release } = gated()
    const batcher = createBatcher<number, number>({ run, maxBatch: 10, weigh: (item) => item, maxWaitingWeight: 10 })
    const first = batcher.add(1)
    await until(() => batches.length === 1)
    const second = batcher.add(8)
    await expect(batcher.add(3)).rejects.toThrow('try again later')
    const third = batcher.add(2)
    release()
    await until(() => batches.length === 2)
    release()
    expect(await Promise.all([first, second, third])).toEqual([10, 80, 20])
  })

  test('idle resolves when nothing waits and nothing is in flight', async () => {
    const { batches, run, release } = gated()
    const batcher = createBatcher<number, number>({ run, maxBatch: 1 })
    await batcher.idle()
    const both = [batcher.add(1), batcher.add(2)]
    let idle = false
    const done = batcher.idle().then(() => {
      idle = true
    })
    await until(() => batches.length === 1)
    release()
    await until(() => batches.length === 2)
    expect(idle).toBe(false)
    release()
    await done
    await Promise.all(both)
  })
})
