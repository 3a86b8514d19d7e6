import { expect, test } from 'bun:test'
import { createPrefetchGauge } from '../../src/execution/prefetch.ts'
import { ManualClock } from '../../src/runtime/clock.ts'

function gauge() {
  const clock = new ManualClock()
  const measured = createPrefetchGauge(clock)
  /** Ends `perSecond` tasks a second for `ms`. */
  const work = (perSecond: number, ms: number) => {
    let owed = 0
    for (let at = 0; at < ms; at += 10) {
      clock.advance(10)
      owed += perSecond / 100
      measured.ended(Math.floor(owed))
      owed -= Math.floor(owed)
    }
  }
  return { clock, measured, work }
}

test('a consumer that has ended nothing holds one delivery a slot', () => {
  expect(gauge().measured.prefetch(7)).toBe(7)
})

test('slow tasks are not hoarded: ten slots of minute-long tasks hold ten', () => {
  const { measured, work } = gauge()
  work(10 / 60, 600_000)
  expect(measured.prefetch(10)).toBe(10)
})

test('quick tasks are held for about one second', () => {
  const { measured, work } = gauge()
  work(200, 3_000)
  expect(measured.rate()).toBeGreaterThan(190)
  expect(measured.rate()).toBeLessThan(210)
  expect(measured.prefetch(10)).toBeGreaterThan(190)
  expect(measured.prefetch(10)).toBeLessThan(210)
})

test('never more than 800 are held beside the slots, however quick the tasks are', () => {
  const { measured, work } = gauge()
  work(50_000, 1_000)
  expect(measured.prefetch(50)).toBe(850)
})

test('the buffer is ample within half a second of quick work, and gone within two seconds of standing still', () => {
  const { clock, measured, work } = gauge()
  work(10_000, 500)
  expect(measured.prefetch(50)).toBe(850)
  clock.advance(2_000)
  expect(measured.prefetch(50)).toBe(50)
})

test('quick tasks with large payloads are buffered up to 16 MiB', () => {
  const { measured, work } = gauge()
  work(2_000, 5_000)
  expect(measured.prefetch(10)).toBe(810)
  measured.taken(100, 100 * 1024 * 1024)
  expect(measured.prefetch(10)).toBe(10 + 16)
  measured.taken(1, 10)
  expect(measured.prefetch(10)).toBeLessThan(10 + 30)
})
