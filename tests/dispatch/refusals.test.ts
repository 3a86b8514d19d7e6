import { expect, test } from 'bun:test'
import { createRefusals } from '../../src/dispatch/refusals.ts'
import type { Destination } from '../../src/task/topology/topology.ts'
import { CountedClock } from '../support/services.ts'

test('where this node may not publish, nothing is for 15 s, however often it is told; then it is tried again', async () => {
  const clock = new CountedClock()
  const over: Destination[] = []
  let changes = 0
  const refusals = createRefusals({ clock, onChange: () => changes++, onOver: (one) => over.push(one) })
  await refusals.start()
  const [queue, exchange] = [
    { kind: 'queue', name: 'a' },
    { kind: 'exchange', name: 'a' },
  ] as const
  refusals.add(queue)
  clock.advance(10_000)
  refusals.add(queue)
  expect([refusals.has(queue), refusals.has(exchange)]).toEqual([true, false])
  refusals.add(exchange)
  expect([refusals.all(), changes]).toEqual([[queue, exchange], 2])
  clock.advance(5_000)
  expect([over, refusals.all(), changes]).toEqual([[queue], [exchange], 3])
  refusals.add(queue)
  await refusals.stop()
  expect([clock.timers, refusals.all()]).toEqual([0, []])
})
