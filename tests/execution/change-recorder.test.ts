import { expect, test } from 'bun:test'
import { createChangeRecorder } from '../../src/execution/change-recorder.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { until } from '../support/until.ts'

function recorderUnderTest({ wantedMs = 0 } = {}) {
  const clock = new ManualClock()
  const written: { ids: string[]; gap: boolean }[] = []
  const state = { failing: false, told: 0, looks: 0, wantedMs, held: Promise.resolve(), pruned: Promise.resolve() }
  const recorder = createChangeRecorder({
    clock,
    log: createLog('silent'),
    async append(ids, gap) {
      await state.held
      if (state.failing) throw new Error('the database is away')
      written.push({ ids, gap })
    },
    prune: () => state.pruned,
    async wantedMs() {
      state.looks++
      return state.wantedMs
    },
    onAppended: () => state.told++,
  })
  /** Lets timers that came due run until `condition` holds. */
  const advanceUntil = (condition: () => boolean, what: string) =>
    until(
      () => {
        if (condition()) return true
        clock.advance(100)
        return false
      },
      { what },
    )
  return { clock, recorder, written, state, advanceUntil }
}

test('nothing is written while nobody listens, and a gap comes first when somebody does', async () => {
  const { recorder, written, clock, state, advanceUntil } = recorderUnderTest()
  await recorder.start()
  await until(() => state.looks === 1, { what: 'the first look' })
  recorder.touched(['a'])
  clock.advance(5_000)
  expect(written).toEqual([])
  expect(recorder.active()).toBe(false)

  const begun = recorder.wanted(30_000)
  clock.advance(0)
  await begun
  recorder.touched(['b', 'c', 'b'])
  recorder.touched(['c'])
  await advanceUntil(() => written.length === 2, 'the changes')
  expect(written).toEqual([
    { ids: [], gap: true },
    { ids: ['b', 'c'], gap: false },
  ])
  expect(state.told).toBe(2)

  clock.advance(30_000)
  expect(recorder.active()).toBe(false)
  recorder.touched(['d'])
  await recorder.stop()
  expect(written).toHaveLength(2)
})

test('a wish that comes while the gap is being written waits for it as well', async () => {
  const { recorder, written, clock, state } = recorderUnderTest()
  const { promise, resolve } = Promise.withResolvers<void>()
  state.held = promise
  await recorder.start()
  const first = recorder.wanted(30_000)
  clock.advance(0)
  const writtenBefore = recorder.wanted(30_000).then(() => written.length)
  resolve()
  await first
  expect(await writtenBefore).toBe(1)
  await recorder.stop()
})

test('a wish that comes after the gap is written waits for nothing, whatever is forgotten meanwhile', async () => {
  const { recorder, written, clock, state } = recorderUnderTest()
  const { promise, resolve } = Promise.withResolvers<void>()
  state.pruned = promise
  await recorder.start()
  const first = recorder.wanted(30_000)
  clock.advance(0)
  await first
  await recorder.wanted(30_000)
  expect(written).toEqual([{ ids: [], gap: true }])
  resolve()
  await recorder.stop()
})

test('another node’s wish is found without its notice', async () => {
  const { recorder, state, written, advanceUntil } = recorderUnderTest()
  await recorder.start()
  await until(() => state.looks === 1, { what: 'the first look' })
  state.wantedMs = 20_000
  await advanceUntil(() => written.length === 1, 'the gap')
  expect(recorder.active()).toBe(true)
  await recorder.stop()
})

test('changes outlast an outage; what is too much becomes a gap', async () => {
  const { recorder, state, written, clock, advanceUntil } = recorderUnderTest()
  await recorder.start()
  const begun = recorder.wanted(3_600_000)
  clock.advance(0)
  await begun
  written.length = 0
  state.failing = true
  recorder.touched(['a'])
  clock.advance(1_000)
  recorder.touched(['b'])
  state.failing = false
  await advanceUntil(() => written.flatMap(({ ids }) => ids).length === 2, 'both changes')
  expect(written.flatMap(({ ids }) => ids).sort()).toEqual(['a', 'b'])
  expect(written.some(({ gap }) => gap)).toBe(false)

  written.length = 0
  recorder.touched(Array.from({ length: 50_001 }, (_, n) => String(n)))
  await advanceUntil(() => written.length > 0, 'the gap')
  expect(written[0]).toEqual({ ids: [], gap: true })
  await recorder.stop()
})

test('what is known at the stop is written, and a gap tells of changes that nobody named', async () => {
  const { recorder, written, clock, advanceUntil } = recorderUnderTest()
  await recorder.start()
  const begun = recorder.wanted(60_000)
  clock.advance(0)
  await begun
  expect(recorder.gapAfter([])).toEqual([])
  expect(recorder.gapAfter(['q'])).toEqual(['q'])
  await advanceUntil(() => written.length === 2, 'the gap')
  expect(written[1]).toEqual({ ids: [], gap: true })
  recorder.touched(['last'])
  await recorder.stop()
  expect(written.at(-1)?.ids).toEqual(['last'])
})
