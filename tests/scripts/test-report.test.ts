import { expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readTestReport } from '../../scripts/test-report.ts'

const SUITE = `
import { describe, expect, test } from 'bun:test'
test('passes', () => {})
describe('a > "b" & <c>', () => {
  test('passes too', () => {})
  test.skip('is skipped', () => {})
  test.todo('is to do')
  test('fails', () => { expect('<skipped />').toBe('</testcase>') })
  test('throws', () => { throw new Error('boom') })
})
`

test("counts what the runner's own report says, and names what was skipped", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'longshore-report-'))
  try {
    writeFileSync(join(folder, 'suite.test.ts'), SUITE)
    const report = join(folder, 'junit.xml')
    const runner = Bun.spawn([process.execPath, 'test', '--reporter=junit', `--reporter-outfile=${report}`], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'ignore'],
    })
    expect(await runner.exited).toBe(1)
    expect(readTestReport(await Bun.file(report).text())).toEqual({
      passed: 2,
      failed: 2,
      skipped: ['suite.test.ts: a > "b" & <c> > is skipped', 'suite.test.ts: a > "b" & <c> > is to do'],
    })
  } finally {
    rmSync(folder, { recursive: true })
  }
})

test('counts nothing in a report that is missing', () => {
  expect(readTestReport('')).toEqual({ passed: 0, failed: 0, skipped: [] })
})
