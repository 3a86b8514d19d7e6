import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createHandlerTarget } from '../../src/targets/handler.ts'
import { findHandler, listHandlers } from '../../src/targets/handlers-dir.ts'
import type { Execution } from '../../src/task/executor.ts'
import { LIMITS } from '../../src/task/limits.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { callOf } from '../execution/executor.conformance.ts'
import { targetContext } from '../support/target-context.ts'

let base: string
let dir: string

beforeEach(async () => {
  base = await mkdtemp(join(tmpdir(), 'longshore-handlers-'))
  dir = join(base, 'handlers')
  await mkdir(dir)
})

afterEach(() => rm(base, { recursive: true }))

const write = (file: string, text: string) => writeFile(join(dir, file), text)

function run(name: string, over: Partial<Execution> = {}, from: string | null = dir): Promise<Outcome> {
  return createHandlerTarget({ dir: from })(callOf(name, over), targetContext())
}

describe('a handler', () => {
  test('may be a .ts, .js or .mjs file, in this order', async () => {
    await write('a.mjs', 'export default () => "mjs"')
    expect(await run('a')).toEqual({ kind: 'succeeded', result: '"mjs"' })
    await write('a.js', 'export default () => "js"')
    expect(await run('a')).toEqual({ kind: 'succeeded', result: '"js"' })
    await write('a.ts', 'const word: string = "ts"; export default () => word')
    expect(await run('a')).toEqual({ kind: 'succeeded', result: '"ts"' })
  })

  test('snoozes its task by returning only a duration to snooze', async () => {
    await write('a.ts', 'export default (payload: unknown) => payload')
    expect(await run('a', { payload: '{"snooze":"5m"}' })).toEqual({ kind: 'snoozed', delayMs: 300_000 })
    expect(await run('a', { payload: '{"snooze":"999999999999d"}' })).toEqual({
      kind: 'snoozed',
      delayMs: LIMITS.dueAheadMs,
    })
    for (const payload of ['{"snooze":"soon"}', '{"snooze":"5m","n":1}', '{"snooze":5}', '["5m"]', 'null']) {
      expect(await run('a', { payload })).toEqual({ kind: 'succeeded', result: payload })
    }
  })

  test('fails its task for good, or sets the wait, by a property of the error', async () => {
    await write('a.ts', 'export default (payload: object) => { throw Object.assign(new Error("no"), payload) }')
    const error = expect.stringMatching(/^no \(a\.ts:1:\d+\)$/)
    expect(await run('a', { payload: '{"retryable":false}' })).toEqual({ kind: 'failed', retryable: false, error })
    expect(await run('a', { payload: '{"retryable":true}' })).toEqual({ kind: 'failed', retryable: true, error })
    expect(await run('a', { payload: '{"retryAfter":"90s"}' })).toEqual({
      kind: 'failed',
      retryable: true,
      error,
      retryAfterMs: 90_000,
    })
    expect(await run('a', { payload: '{"retryAfter":90}' })).toEqual({
      kind: 'failed',
      retryable: true,
      error: expect.stringContaining('its retryAfter 90 is no duration such as "30s" and was ignored'),
    })
  })

  test('names the kind of error and the first place in its own file', async () => {
    await write('deep.ts', 'export function call(f: () => void) { f() }')
    await write('a.ts', 'import { call } from "./deep.ts"\nexport default () =>\n  call((undefined as any).there)')
    expect(await run('a')).toMatchObject({ error: expect.stringMatching(/^TypeError: .* \(a\.ts:3:\d+\)$/) })
  })

  test('that was aborted while it was loaded is not called', async () => {
    await write('a.ts', 'export default () => "called"')
    const controller = new AbortController()
    const target = createHandlerTarget({ dir })
    const outcome = target(callOf('a'), targetContext({ signal: controller.signal }))
    controller.abort()
    expect(await outcome).toMatchObject({ kind: 'failed', error: 'aborted before the handler was called' })
  })

  test('is loaded once, however many tasks come at a time', async () => {
    await write('a.ts', 'let calls = 0; export default () => ++calls')
    const target = createHandlerTarget({ dir })
    const outcomes = await Promise.all([1, 2, 3].map(() => target(callOf('a'), targetContext())))
    expect(outcomes.map((outcome) => 'result' in outcome && outcome.result)).toEqual(['1', '2', '3'])
  })
})

describe('a handler that cannot be called', () => {
  test('because nobody wrote it fails for good and names the folder', async () => {
    expect(await run('missing')).toEqual({
      kind: 'failed',
      retryable: false,
      error: `There is no handler "missing" in ${dir} (looked for missing.ts, missing.js, missing.mjs; links out of the folder do not count)`,
    })
    expect(await run('missing', {}, join(base, 'nowhere'))).toMatchObject({ kind: 'failed', retryable: false })
    expect(await run('missing', {}, null)).toEqual({
      kind: 'failed',
      retryable: false,
      error: 'There is no handler "missing": HANDLERS_DIR is not set',
    })
  })

  test('is found as soon as it is written', async () => {
    const target = createHandlerTarget({ dir })
    const context = targetContext()
    expect(await target(callOf('late'), context)).toMatchObject({ kind: 'failed' })
    await write('late.ts', 'export default () => 1')
    expect(await target(callOf('late'), context)).toEqual({ kind: 'succeeded', result: '1' })
  })

  test('because its file is broken is tried again, and the error names the file and the cause', async () => {
    await write('syntax.ts', 'export default ( => 1')
    await write('throws.ts', 'throw new Error("no database")')
    await write('imports.ts', 'import "./gone.ts"; export default () => 1')
    await write('bare.ts', 'export const handler = () => 1')
    const error = async (name: string) => {
      const outcome = await run(name)
      expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
      return 'error' in outcome ? outcome.error : undefined
    }
    expect(await error('syntax')).toStartWith(`Cannot load ${join(dir, 'syntax.ts')}: `)
    expect(await error('syntax')).toContain('Unexpected =>')
    expect(await error('throws')).toMatch(/throws\.ts: no database \(throws\.ts:1:\d+\)$/)
    expect(await error('imports')).toContain('gone.ts')
    expect(await error('bare')).toBe(`${join(dir, 'bare.ts')} has no function as its default export`)
  })
})

describe('the folder of handlers', () => {
  test('cannot be left by a name or a link', async () => {
    await writeFile(join(base, 'secret.ts'), 'export default () => "secret"')
    await symlink(join(base, 'secret.ts'), join(dir, 'link.ts'))
    await symlink(base, join(dir, 'up'))
    await mkdir(join(base, 'handlers-other'))
    await writeFile(join(base, 'handlers-other', 'x.ts'), 'export default () => "secret"')
    await symlink(join(base, 'handlers-other', 'x.ts'), join(dir, 'sibling.ts'))
    for (const name of ['../secret', 'up/secret', '..', '.', '', 'link', 'sibling', '/etc/passwd', 'a\0b', '.hidden']) {
      expect(findHandler(dir, name)).toBeUndefined()
      expect(await run(name)).toMatchObject({ kind: 'failed', retryable: false })
    }
  })

  test('may be a link itself and may link within itself, as mounted configuration does', async () => {
    await mkdir(join(dir, '..data'))
    await write('..data/a.ts', 'export default () => 1')
    await symlink('..data/a.ts', join(dir, 'a.ts'))
    const link = join(base, 'link')
    await symlink(dir, link)
    expect(await run('a', {}, link)).toEqual({ kind: 'succeeded', result: '1' })
    expect(listHandlers(link)).toEqual(['a'])
  })

  test('lists the handlers that can be called', async () => {
    for (const file of ['b.ts', 'a.mjs', 'a.js', 'v1.2.ts', 'types.d.ts', 'notes.txt', '.hidden.ts', '-x.ts']) {
      await write(file, 'export default () => 1')
    }
    await mkdir(join(dir, 'folder.ts'))
    await symlink(join(base, 'gone.ts'), join(dir, 'dangling.ts'))
    expect(listHandlers(dir)).toEqual(['a', 'b', 'v1.2'])
    expect(listHandlers(join(base, 'nowhere'))).toEqual([])
  })

  test('that cannot be read is tried again', async () => {
    expect(await run('a', {}, join(base, 'x'.repeat(300)))).toEqual({
      kind: 'failed',
      retryable: true,
      error: expect.stringMatching(/^Cannot read the handlers' folder .*: ENAMETOOLONG/s),
    })
  })
})
