import { expect, test } from 'bun:test'
import { ManualClock } from '../../src/runtime/clock.ts'
import { createNoopTarget } from '../../src/targets/noop.ts'
import type { TargetContext } from '../../src/task/attempt.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import type { NoopTarget } from '../../src/task/target.ts'
import { anExecution } from '../execution/executor.conformance.ts'

const context = (signal = new AbortController().signal): TargetContext => ({
  signal,
  log: () => {},
  progress: () => {},
})

const run = (target: Omit<NoopTarget, 'type'>, random: () => number): Promise<Outcome> =>
  createNoopTarget({ random })(anExecution({ target: { type: 'noop', ...target } }), context())

test('noop succeeds at once and does not ask for a signal', async () => {
  const bare = {
    get signal(): AbortSignal {
      throw new Error('was asked for')
    },
    log: () => {},
    progress: () => {},
  }
  expect(await createNoopTarget()(anExecution(), bare)).toEqual({ kind: 'succeeded' })
})

test('noop takes as long as its delay says', async () => {
  const clock = new ManualClock()
  let ended = false
  const running = createNoopTarget({ clock })(anExecution({ target: { type: 'noop', delay: '2m' } }), context())
  const end = running.then((outcome) => {
    ended = true
    return outcome
  })
  clock.advance(119_999)
  await Promise.resolve()
  expect(ended).toBe(false)
  clock.advance(1)
  expect(await end).toEqual({ kind: 'succeeded' })
})

test('noop ends early when it is aborted', async () => {
  const controller = new AbortController()
  const running = createNoopTarget()(anExecution({ target: { type: 'noop', delay: '1h' } }), context(controller.signal))
  controller.abort()
  expect(await running).toMatchObject({ kind: 'failed', retryable: true })
})

test('noop fails in the shares that it was given', async () => {
  expect(await run({ failRate: 1 }, () => 0.999)).toMatchObject({ kind: 'failed', retryable: true })
  expect(await run({ deadRate: 1 }, () => 0.999)).toMatchObject({ kind: 'failed', retryable: false })
  const shares = { deadRate: 0.25, failRate: 0.5 }
  expect(await run(shares, () => 0.249)).toMatchObject({ kind: 'failed', retryable: false })
  expect(await run(shares, () => 0.25)).toMatchObject({ kind: 'failed', retryable: true })
  expect(await run(shares, () => 0.749)).toMatchObject({ kind: 'failed', retryable: true })
  expect(await run(shares, () => 0.75)).toEqual({ kind: 'succeeded' })
  expect(await run({ failRate: 0, deadRate: 0 }, () => 0)).toEqual({ kind: 'succeeded' })
})
