import { Problem } from './errors.ts'

/** Gathers what comes while a batch is in flight, so that many callers share one commit. */
export interface Batcher<In, Out> {
  /**
   * Resolves with the item's own result, or rejects with its own error. An item that finds the backlog
   * full is refused with the problem `overloaded` and was never part of a batch.
   */
  add(item: In): Promise<Out>
  /** Resolves when nothing waits and nothing is in flight. */
  idle(): Promise<void>
}

export interface BatcherOptions<In, Out> {
  /** Answers in the order of the batch; an Error in the answer fails that one item. */
  run(batch: In[]): Promise<(Out | Error)[]>
  /** Items of one batch, at most. */
  maxBatch: number
  /** Batches in flight, at most; 1 by default. */
  lanes?: number
  /** Items that may wait; 10,000 by default. */
  maxWaiting?: number
  /** Says which rejections of `run` may be one item's fault; such a batch is repeated in halves. None by default. */
  splitOnError?: (error: unknown) => boolean
  /** What an item weighs, for the two bounds below; 0 by default. */
  weigh?: (item: In) => number
  /** Weight of one batch, at most; a single heavier item goes alone. */
  maxBatchWeight?: number
  /** Weight that may wait. */
  maxWaitingWeight?: number
}

interface Waiting<In, Out> {
  item: In
  weight: number
  resolve(out: Out): void
  reject(error: unknown): void
}

/**
 * Group commit without an artificial delay: the first item goes in the microtask after it came, together with those of
 * the same turn; others gather while all lanes are busy and go as soon as one is free.
 */
export function createBatcher<In, Out>(options: BatcherOptions<In, Out>): Batcher<In, Out> {
  const { run, maxBatch, lanes = 1, maxWaiting = 10_000, splitOnError = () => false, weigh = () => 0 } = options
  const { maxBatchWeight = Number.POSITIVE_INFINITY, maxWaitingWeight = Number.POSITIVE_INFINITY } = options
  const waiting: Waiting<In, Out>[] = []
  let waitingWeight = 0
  let inFlight = 0
  let scheduled = false
  let idlers: (() => void)[] = []

  function schedule(): void {
    if (scheduled || waiting.length === 0 || inFlight >= lanes) return
    scheduled = true
    queueMicrotask(() => {
      scheduled = false
      while (inFlight < lanes && waiting.length > 0) void flight(take())
    })
  }

  function take(): Waiting<In, Out>[] {
    let count = 0
    let weight = 0
    for (const { weight: own } of waiting) {
      if (count === maxBatch || (count > 0 && weight + own > maxBatchWeight)) break
      count += 1
      weight += own
    }
    waitingWeight -= weight
    return waiting.splice(0, count)
  }

  async function flight(batch: Waiting<In, Out>[]): Promise<void> {
    inFlight += 1
    await settle(batch)
    inFlight -= 1
    schedule()
    if (inFlight === 0 && waiting.length === 0) {
      for (const idler of idlers) idler()
      idlers = []
    }
  }

  async function settle(batch: Waiting<In, Out>[]): Promise<void> {
    try {
      const answers = await run(batch.map(({ item }) => item))
      if (answers.length !== batch.length) {
        throw new Error(`A batch of ${batch.length} items was answered with ${answers.length} results`)
      }
      batch.forEach(({ resolve, reject }, index) => {
        const answer = answers[index] as Out | Error
        if (answer instanceof Error) reject(answer)
        else resolve(answer)
      })
    } catch (error) {
      if (batch.length > 1 && splitOnError(error)) {
        const middle = batch.length >> 1
        await settle(batch.slice(0, middle))
        await settle(batch.slice(middle))
      } else {
        for (const { reject } of batch) reject(error)
      }
    }
  }

  return {
    add(item) {
      const weight = weigh(item)
      if (waiting.length >= maxWaiting || (waiting.length > 0 && waitingWeight + weight > maxWaitingWeight)) {
        return Promise.reject(new Problem('overloaded', `${waiting.length} submissions wait already: try again later`))
      }
      return new Promise<Out>((resolve, reject) => {
        waiting.push({ item, weight, resolve, reject })
        waitingWeight += weight
        schedule()
      })
    },
    idle() {
      if (inFlight === 0 && waiting.length === 0) return Promise.resolve()
      return new Promise((resolve) => idlers.push(resolve))
    },
  }
}
