import { expect, test } from 'bun:test'
import { createRetention } from '../../src/dispatch/retention.ts'
import { ManualClock } from '../../src/runtime/clock.ts'
import { silent, turns } from '../support/services.ts'

const retention = { succeeded: '1h', cancelled: '2h', dead: '90d' }

test('final tasks are pruned in bounded batches until fewer than a batch are left, then again after a minute', async () => {
  const clock = new ManualClock()
  const prunes: { queue: string; status: string; keepMs: number; limit: number }[] = []
  let left = 2_500
  let folds = 0
  const service = createRetention({
    clock,
    log: silent,
    queues: () => [{ name: 'work', retention }],
    async prune(prune) {
      prunes.push(prune)
      const pruned = prune.status === 'succeeded' ? Math.min(left, prune.limit) : 0
      if (prune.status === 'succeeded') left -= pruned
      return pruned
    },
    foldEndedNodes: async () => void folds++,
  })
  await service.start()
  await turns()
  expect(left).toBe(0)
  expect(prunes.map(({ status, keepMs }) => `${status} ${keepMs}`)).toEqual([
    ...Array(3).fill('succeeded 3600000'),
    'dead 7776000000',
    'cancelled 7200000',
  ])
  expect(prunes.every(({ limit }) => limit === 1_000)).toBe(true)
  expect(folds).toBe(1)
  clock.advance(60_000)
  await turns()
  expect(folds).toBe(2)
  await service.stop()
  clock.advance(600_000)
  await turns()
  expect(folds).toBe(2)
})

test('pruning goes on after a minute when the database was away, and stops within a batch', async () => {
  const clock = new ManualClock()
  let calls = 0
  let answer: ((pruned: number) => void) | undefined
  const service = createRetention({
    clock,
    log: silent,
    queues: () => [{ name: 'work', retention }],
    prune() {
      calls++
      if (calls === 1) return Promise.reject(new Error('connect ECONNREFUSED'))
      return new Promise((resolve) => {
        answer = resolve
      })
    },
    foldEndedNodes: async () => {},
  })
  await service.start()
  await turns()
  clock.advance(60_000)
  await turns()
  expect(calls).toBe(2)
  const stopped = service.stop()
  answer?.(1_000)
  await stopped
  expect(calls).toBe(2)
})

test('a retention longer than Postgres can count back means a hundred years, and holds up no other queue', async () => {
  const forever = '99999999999d'
  const asked: [string, number][] = []
  const service = createRetention({
    clock: new ManualClock(),
    log: silent,
    queues: () => [
      { name: 'archive', retention: { succeeded: forever, cancelled: forever, dead: forever } },
      { name: 'work', retention },
    ],
    async prune({ queue, keepMs }) {
      asked.push([queue, keepMs])
      return 0
    },
    foldEndedNodes: async () => undefined,
  })
  await service.start()
  await turns()
  await service.stop()
  const century = 36_525 * 86_400_000
  expect(asked.filter(([queue]) => queue === 'archive').map(([, keepMs]) => keepMs)).toEqual([
    century,
    century,
    century,
  ])
  expect(asked.filter(([queue]) => queue === 'work')).toHaveLength(3)
})
