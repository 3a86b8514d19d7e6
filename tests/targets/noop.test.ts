import { expect, test } from 'bun:test'
import { ManualClock } from '../../src/runtime/clock.ts'
import { createNoopTarget } from '../../src/targets/noop.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import type { NoopTarget } from '../../src/task/target/target.ts'
import { anExecution } from '../execution/executor.conformance.ts'
import { nobodyAnswers, targetContext } from '../support/target-context.ts'

const run = (target: Omit<NoopTarget, 'type'>, random: () => number): Promise<Outcome> =>
  createNoopTarget({ random })(anExecution({ target: { type: 'noop', ...target } }), targetContext())

test('noop succeeds at once and does not ask for a signal', async () => {
  const bare = {
    get signal(): AbortSignal {
      throw new Error('was asked for')
    },
    log: () => {},
    progress: () => {},
    ask: nobodyAnswers,
  }
  expect(await createNoopTarget()(anExecution(), bare)).toEqual({ kind: 'succeeded' })
})

test('noop takes as long as its delay says', async () => {
  const clock = new ManualClock()
  let ended = false
  const running = createNoopTarget({ clock })(anExecution({ target: { type: 'noop', delay: '2m' } }), targetContext())
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
  const running = createNoopTarget()(
    anExecution({ target: { type: 'noop', delay: '1h' } }),
    targetContext({ signal: controller.signal }),
  )
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

/** How long noop waits, by a clock that jumps from timer to timer, and what it logs. */
async function waited(
  target: Omit<NoopTarget, 'type'>,
  payload: string,
  random = () => 0,
): Promise<[number, string[]]> {
  const clock = new ManualClock()
  const lines: string[] = []
  const run = createNoopTarget({ clock, random })
  const told = { ...targetContext(), log: (line: string) => lines.push(line) }
  const running = run(anExecution({ target: { type: 'noop', ...target }, payload }), told)
  const startedAt = clock.now()
  let ended = false
  void running.then(() => {
    ended = true
  })
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  for (await turn(); !ended; await turn()) clock.advance(500)
  await running
  return [clock.now() - startedAt, lines]
}

test('noop takes any time between min and max', async () => {
  const delay = { min: '1s', max: '8s' }
  expect((await waited({ delay }, '1', () => 0))[0]).toBe(1_000)
  expect((await waited({ delay }, '1', () => 0.5))[0]).toBe(4_500)
  expect((await waited({ delay: { min: '2s', max: '2s' } }, '1', () => 0.9))[0]).toBe(2_000)
})

test.each([
  ['"Hallo ... Welt."', 4_000, 'Hallo ... Welt.'],
  ['"none"', 0, 'none'],
  ['{"raw":"a.b"}', 1_000, 'a.b'],
  ['{"raw":"a.b","n":1.5}', 2_000, '{"raw":"a.b","n":1.5}'],
  ['null', 0, 'null'],
])('noop takes longer for each dot in the text of %s, and logs it', async (payload, ms, text) => {
  expect(await waited({ delayPerDot: '1s', log: true }, payload)).toEqual([ms, [text]])
})
