import { expect, test } from 'bun:test'
import { ManualClock } from '../../src/runtime/clock.ts'
import { createPeriodic, type PeriodicOptions } from '../../src/runtime/periodic.ts'
import { until } from '../support/until.ts'

function periodic(options: Partial<PeriodicOptions> = {}) {
  const clock = new ManualClock()
  const errors: unknown[] = []
  const made = createPeriodic({
    name: 'work',
    description: 'Works',
    everyMs: 1_000,
    clock,
    run: async () => undefined,
    onError: (error) => errors.push(error),
    ...options,
  })
  const runs = (count: number) =>
    until(() => made.state().runs === count && made.state().nextAt !== undefined, { what: `run ${count}` })
  return { made, clock, errors, runs }
}

test('runs at once and then after each pause, and tells how it stands', async () => {
  const { made, clock, runs } = periodic()
  expect(made.state()).toMatchObject({ runs: 0, lastAt: undefined, nextAt: undefined, running: false })
  made.start()
  await runs(1)
  expect(made.state()).toMatchObject({ lastAt: 0, nextAt: 1_000, lastError: undefined })
  clock.advance(999)
  expect(made.state().runs).toBe(1)
  clock.advance(1)
  await runs(2)
  expect(made.state()).toMatchObject({ lastAt: 1_000, nextAt: 2_000 })
  await made.stop()
  expect(made.state().nextAt).toBeUndefined()
})

test('with later, the first run comes after a pause', async () => {
  const { made, clock, runs } = periodic({ later: true })
  made.start()
  expect(made.state()).toMatchObject({ runs: 0, nextAt: 1_000 })
  clock.advance(1_000)
  await runs(1)
  await made.stop()
})

test('a run that names a shorter pause gets it, never a longer one', async () => {
  const pauses = [10, 5_000]
  const { made, clock, runs } = periodic({ run: async () => pauses.shift() })
  made.start()
  await runs(1)
  expect(made.state().nextAt).toBe(10)
  clock.advance(10)
  await runs(2)
  expect(made.state().nextAt).toBe(1_010)
  await made.stop()
})

test('a run that fails is told, does not end the work, and is followed by the pause for failures', async () => {
  let fails = true
  const { made, clock, errors, runs } = periodic({
    retryMs: 50,
    run: async () => {
      if (fails) throw new Error('no luck')
    },
  })
  made.start()
  await runs(1)
  expect(made.state()).toMatchObject({ lastError: 'no luck', nextAt: 50 })
  expect(errors).toEqual([new Error('no luck')])
  fails = false
  clock.advance(50)
  await runs(2)
  expect(made.state()).toMatchObject({ lastError: undefined, nextAt: 1_050 })
  await made.stop()
})

test('wake ends a pause, and a run that goes on is followed by another; never two at once', async () => {
  let finish: (() => void) | undefined
  let atOnce = 0
  const { made } = periodic({
    run: async () => {
      expect(++atOnce).toBe(1)
      await new Promise<void>((resolve) => {
        finish = resolve
      })
      atOnce--
    },
  })
  made.start()
  await until(() => finish, { what: 'the first run' })
  made.wake()
  made.wake()
  finish?.()
  finish = undefined
  await until(() => finish, { what: 'the run that was woken' })
  expect(made.state()).toMatchObject({ runs: 1, running: true })
  ;(finish as unknown as () => void)()
  await until(() => made.state().nextAt !== undefined, { what: 'the pause' })
  expect(made.state().runs).toBe(2)
  finish = undefined
  made.wake()
  await until(() => finish, { what: 'the third run' })
  ;(finish as unknown as () => void)()
  await made.stop()
})

test('stop waits for the run in hand, which hears of it, and can be followed by a start', async () => {
  let heard = false
  const { made } = periodic({
    run: (signal) =>
      new Promise<void>((resolve) =>
        signal.addEventListener('abort', () => {
          heard = true
          resolve()
        }),
      ),
  })
  for (let runs = 1; runs <= 2; runs++) {
    heard = false
    made.start()
    await until(() => made.state().running, { what: 'the run' })
    await made.stop()
    expect(heard).toBe(true)
    expect(made.state()).toMatchObject({ runs, running: false, nextAt: undefined })
  }
})
