import { expect, test } from 'bun:test'
import { createInlineExecutor } from '../../src/execution/inline-executor.ts'
import { ManualClock, realClock } from '../../src/runtime/clock.ts'
import { createRunTarget } from '../../src/targets/run.ts'
import { nobodyAnswers } from '../support/target-context.ts'
import { anExecution, NO_ANSWERS, silent, testExecutor, threadSettings } from './executor.conformance.ts'

testExecutor('the inline executor', ({ handlersDir, onReport, answers }) =>
  createInlineExecutor({
    runTarget: createRunTarget(threadSettings(handlersDir), nobodyAnswers),
    clock: realClock,
    log: silent,
    onReport,
    answers,
  }),
)

test('a target that throws or rejects is a failure that is tried again', async () => {
  for (const runTarget of [
    () => {
      throw new Error('a bug')
    },
    () => Promise.reject(new Error('a bug')),
  ]) {
    const executor = createInlineExecutor({
      runTarget,
      clock: realClock,
      log: silent,
      onReport: () => {},
      answers: NO_ANSWERS,
    })
    expect(await executor.run(anExecution())).toEqual({ kind: 'failed', retryable: true, error: 'Error: a bug' })
    await executor.close()
  }
})

test('a task that ignores its signal is timed out when it ends, and its response is kept', async () => {
  const clock = new ManualClock()
  const { promise, resolve } = Promise.withResolvers<void>()
  const response = { status: 503, body: 'busy' }
  const executor = createInlineExecutor({
    runTarget: async () => {
      await promise
      return { kind: 'failed', retryable: false, error: 'too late', response }
    },
    clock,
    log: silent,
    onReport: () => {},
    answers: NO_ANSWERS,
  })
  const run = executor.run(anExecution({ timeoutMs: 90_000 }))
  clock.advance(90_000)
  resolve()
  expect(await run).toEqual({ kind: 'failed', retryable: true, error: 'timed out after 90s', response })
  await executor.close()
})

test('a wait that is longer than a day is a day, which is what every ledger takes', async () => {
  const executor = createInlineExecutor({
    runTarget: async () => ({ kind: 'failed', retryable: true, error: 'busy', retryAfterMs: 172_800_000 }),
    clock: realClock,
    log: silent,
    onReport: () => {},
    answers: NO_ANSWERS,
  })
  expect(await executor.run(anExecution())).toMatchObject({ retryAfterMs: 86_400_000 })
  await executor.close()
})

test('a taker of reports that throws harms no outcome', async () => {
  const executor = createInlineExecutor({
    runTarget: async (_, { log }) => {
      log('a line')
      return { kind: 'succeeded' }
    },
    clock: realClock,
    log: silent,
    answers: NO_ANSWERS,
    onReport() {
      throw new Error('the ledger is away')
    },
  })
  expect(await executor.run(anExecution())).toEqual({ kind: 'succeeded' })
  await executor.close()
})
