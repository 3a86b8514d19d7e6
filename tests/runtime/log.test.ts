import { expect, test } from 'bun:test'
import { createLog, type Logger, Secret, tellOnEveryLine } from '../../src/runtime/log.ts'

function logged(write: (log: Logger) => void): Record<string, unknown>[] {
  const lines: string[] = []
  write(createLog('info', { write: (line: string) => void lines.push(line) }))
  return lines.map((line) => JSON.parse(line) as Record<string, unknown>)
}

test('a line tells its level, time, event, ids and message', () => {
  const [line] = logged((log) => log.info({ event: 'node-joined', node: 'n1' }, 'hello'))
  expect(line).toEqual({ level: 'info', time: expect.any(String), event: 'node-joined', node: 'n1', msg: 'hello' })
})

test('an event that is not in the list does not compile', () => {
  logged((log) => {
    // @ts-expect-error: the list is closed
    log.info({ event: 'made-up' })
    // @ts-expect-error: a line without an event says nothing that can be searched for
    log.info('just a message')
  })
})

test('a secret is not told, wherever it stands', () => {
  const secret = new Secret('planted')
  const [line] = logged((log) => log.info({ event: 'listening', secret, deep: [{ secret }], text: `${secret}` }))
  expect(JSON.stringify(line)).not.toContain('planted')
  expect(line).toMatchObject({ secret: '[secret]', deep: [{ secret: '[secret]' }], text: '[secret]' })
})

test('what is told on every line gives way to the line’s own', () => {
  const lines = logged((log) => {
    let id = 'a'
    tellOnEveryLine(log, () => ({ node: id }))
    log.info({ event: 'listening' })
    id = 'b'
    log.info({ event: 'listening' })
    log.warn({ event: 'node-dead', node: 'c' })
  })
  expect(lines.map(({ node }) => node)).toEqual(['a', 'b', 'c'])
})

test('a terminal gets lines for people', async () => {
  const child = Bun.spawn(
    [
      process.execPath,
      '-e',
      `const { openLog } = await import(${JSON.stringify(`${import.meta.dir}/../../src/runtime/log.ts`)})
       const log = await openLog('info', true)
       log.warn({ event: 'node-dead', node: 'n1' }, 'A node is gone')`,
    ],
    { stdout: 'pipe' },
  )
  const text = await new Response(child.stdout).text()
  await child.exited
  expect(text).toContain('WARN')
  expect(text).toContain('A node is gone')
  expect(text).toContain('node-dead')
  expect(text).not.toStartWith('{')
})
