import { expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ENGINES } from '../support/database.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, submit } from './installation.ts'

for (const engine of ENGINES) {
  test(`${engine}: a file dropped into HANDLERS_DIR runs, is loaded again when it changes, and is named in the error when it is broken`, async () => {
    await using home = await install(engine)
    const node = await home.start()
    await makeQueue(node, 'work', { base: '200ms', maxAttempts: 50 })
    const write = (name: string, text: string) => writeFile(join(node.handlersDir, `${name}.ts`), text)
    const work = (name: string, payload: unknown = null) => ({
      queue: 'work',
      payload,
      target: { type: 'handler', name },
    })

    const unknown = await node.request('POST', '/tasks', work('greet'))
    expect(unknown).toMatchObject({ status: 422, body: { code: 'unknown-handler', detail: expect.any(String) } })

    await write(
      'greet',
      `export default async ({ name }: { name: string }, { task, log, progress }) => {
         log('greets ' + name)
         progress({ done: 1, total: 1, message: 'greeted' })
         return { text: 'Hello, ' + name, attempt: task.attempt }
       }`,
    )
    expect(await reached(node, await submit(node, work('greet', { name: 'Ada' })))).toMatchObject({
      status: 'succeeded',
      result: { text: 'Hello, Ada', attempt: 1 },
      logs: ['greets Ada'],
      progress: { done: 1, total: 1, message: 'greeted' },
    })

    await write('greet', `export default ({ name }: { name: string }) => 'Good day, ' + name`)
    const changed = await until(
      async () => {
        const task = await reached(node, await submit(node, work('greet', { name: 'Ada' })))
        return task.result === 'Good day, Ada' ? task : undefined
      },
      { what: 'the changed handler to run', timeoutMs: 30_000 },
    )
    expect(changed.status).toBe('succeeded')

    await write('broken', 'export default ((')
    const id = await submit(node, work('broken'))
    const failing = await reached(node, id, ['retrying'])
    expect(failing.error).toContain(join(node.handlersDir, 'broken.ts'))
    await write('broken', 'export default () => "mended"')
    expect(await reached(node, id, ['succeeded'])).toMatchObject({ result: 'mended' })
    await node.stop()
  }, 150_000)
}
