import type { BenchNode } from './node.ts'

/** Runs `work` `count` times by `callers` at once; gives calls a second. */
export async function rate(count: number, callers: number, work: (index: number) => Promise<unknown>): Promise<number> {
  let next = 0
  const began = performance.now()
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (next < count) await work(next++)
    }),
  )
  return (count / (performance.now() - began)) * 1_000
}

/** Submits tasks to a queue, or another address, with their payload numbered, in batches of 1,000, by two callers; gives tasks a second. */
export async function fill(node: BenchNode, to: string | { exchange: string }, count: number): Promise<number> {
  const size = 1_000
  const address = typeof to === 'string' ? { queue: to } : to
  const batches = await rate(count / size, 2, (batch) =>
    node.call(
      'POST',
      '/tasks/batch',
      Array.from({ length: size }, (_, n) => ({ ...address, type: 'bench', payload: { n: batch * size + n } })),
    ),
  )
  return batches * size
}

/** Resolves when `condition` holds; asks four times a second, so that the asking is not measured; throws after ten minutes. */
export async function reached(condition: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 600_000
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error('The benchmark did not end in ten minutes')
    await Bun.sleep(250)
  }
}

/** The `share` quantile of `values`. */
export function quantile(values: number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

/** The highest reading of `read` while `work` runs, read every 100 ms. */
export async function peak<T>(read: () => number, work: () => Promise<T>): Promise<{ result: T; peak: number }> {
  let highest = read()
  const timer = setInterval(() => {
    highest = Math.max(highest, read())
  }, 100)
  try {
    return { result: await work(), peak: highest }
  } finally {
    clearInterval(timer)
  }
}
