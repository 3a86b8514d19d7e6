import { expect, test } from 'bun:test'
import { DEFAULT_RETRY_POLICY } from '../../src/task/retry-policy.ts'
import { queuePolicy } from '../../src/task/topology/queue.ts'
import type { Topology } from '../../src/task/topology/topology.ts'
import { createRegistry } from '../../src/topology/registry.ts'
import { CountedClock, silent, turns } from '../support/services.ts'

const retry = { maxAttempts: 3, backoff: { kind: 'fixed', base: '1s' } } as const
const withQueue = (name: string): Topology => ({
  queues: [{ ...queuePolicy({ retry }), name, paused: false, conflict: null }],
  exchanges: [],
  bindings: [],
  consumers: [],
})

/** A registry whose readings end when the test says so; with `auto`, at once. */
function reading() {
  const clock = new CountedClock()
  const seen: string[] = []
  const control = { auto: true, rows: withQueue('a'), reads: 0, ends: [] as (() => void)[], fails: false }
  const registry = createRegistry({
    clock,
    log: silent,
    async read() {
      control.reads++
      const { rows } = control
      if (control.fails) throw new Error('connect ECONNREFUSED')
      if (!control.auto) await new Promise<void>((resolve) => control.ends.push(resolve))
      return rows
    },
    onRead: ({ queues }) => void seen.push(...queues.map((queue) => queue.name)),
  })
  return { clock, registry, seen, control }
}

test('the registry knows the rows once it has started, and the default policy for a queue it does not know', async () => {
  const { registry, seen } = reading()
  await registry.start()
  expect(seen).toEqual(['a'])
  expect(registry.queues().map((queue) => queue.name)).toEqual(['a'])
  expect(registry.retryOf('a')).toEqual(retry)
  expect(registry.retryOf('b')).toEqual(DEFAULT_RETRY_POLICY)
  await registry.stop()
})

test('refresh resolves when what was committed before the call has been seen; calls meanwhile share one reading', async () => {
  const { registry, seen, control } = reading()
  await registry.start()
  control.auto = false
  const first = registry.refresh()
  control.rows = withQueue('b')
  let done = 0
  const later = [1, 2, 3].map(() => registry.refresh().then(() => done++))
  control.ends.shift()?.()
  await first
  await turns()
  expect(done).toBe(0)
  control.ends.shift()?.()
  await Promise.all(later)
  expect(seen).toEqual(['a', 'a', 'b'])
  expect(control.reads).toBe(3)
  await registry.stop()
})

test('a refresh that fails rejects, and the one after it reads again', async () => {
  const { registry, seen, control } = reading()
  await registry.start()
  control.fails = true
  const ends = await Promise.allSettled([registry.refresh(), registry.refresh()])
  expect(ends.map((end) => end.status)).toEqual(['rejected', 'rejected'])
  expect(control.reads).toBe(3)
  control.fails = false
  control.rows = withQueue('b')
  await registry.refresh()
  expect(seen.at(-1)).toBe('b')
  await registry.stop()
})

test('a poll every ten seconds finds what no notice told, also after the database was away; stop ends it', async () => {
  const { clock, registry, seen, control } = reading()
  await registry.start()
  control.fails = true
  clock.advance(10_000)
  await turns()
  control.fails = false
  control.rows = withQueue('b')
  clock.advance(9_999)
  await turns()
  expect(seen).toEqual(['a'])
  clock.advance(1)
  await turns()
  expect(seen).toEqual(['a', 'b'])
  await registry.stop()
  expect(clock.timers).toBe(0)
  const { reads } = control
  clock.advance(60_000)
  await turns()
  expect(control.reads).toBe(reads)
})

test('stop waits for the reading in hand', async () => {
  const { registry, control } = reading()
  await registry.start()
  control.auto = false
  const refreshed = registry.refresh()
  let stopped = false
  const stop = registry.stop().then(() => {
    stopped = true
  })
  await turns()
  expect(stopped).toBe(false)
  control.ends.shift()?.()
  await Promise.all([stop, refreshed])
})
