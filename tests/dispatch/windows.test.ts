import { expect, test } from 'bun:test'
import { createWindows } from '../../src/dispatch/windows.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { createLog } from '../../src/runtime/log.ts'
import { until } from '../support/until.ts'

test('while it cannot be read what other nodes do, windows go by this node, and the log says so', async () => {
  const lines: string[] = []
  const windows = createWindows({
    clock: realClock,
    log: createLog('debug', { write: (line) => void lines.push(line) }),
    readElsewhere: () => Promise.reject(new Error('the database is away')),
    here: () => ({ slots: 100, rate: 0 }),
    given: () => null,
  })
  await windows.start()
  await until(() => lines.length > 0, { what: 'a line in the log' })
  await windows.stop()
  expect(JSON.parse(lines[0] ?? '')).toMatchObject({ event: 'windows-failed', error: 'the database is away' })
  expect(windows.of('q')).toBe(400)
})
