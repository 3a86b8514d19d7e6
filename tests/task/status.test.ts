import { expect, test } from 'bun:test'
import { FINAL_STATUSES, isFinal, STATUSES } from '../../src/task/status.ts'

test('a task is final when it succeeded, died or was cancelled, and only then', () => {
  expect(STATUSES.filter(isFinal)).toEqual(['succeeded', 'dead', 'cancelled'])
  expect([...FINAL_STATUSES] as string[]).toEqual(STATUSES.filter(isFinal))
})
