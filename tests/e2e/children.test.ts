import { expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ENGINES } from '../support/database.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, read, submit } from './installation.ts'

/** Gives its task three children over the API, as a user's function would. */
const SPLIT = `export default async ({ api, authorization, children }, { task }) => {
  const response = await fetch(api + '/api/v1/tasks/batch', {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify(children.map((child) => ({ ...child, parentId: task.id }))),
  })
  if (!response.ok) throw new Error(await response.text())
  return (await response.json()).ids
}`

for (const engine of ENGINES) {
  test(`${engine}: a handler gives its task children; the parent runs until the last of them and ends as they do`, async () => {
    await using home = await install(engine)
    await using sink = await startSink()
    let broken = true
    const held = Promise.withResolvers<void>()
    sink.reply = async ({ path }) => {
      if (path === '/held') await held.promise
      return { status: path === '/broken' && broken ? 400 : 200 }
    }
    const node = await home.start()
    await makeQueue(node, 'work')
    await writeFile(join(node.handlersDir, 'split.ts'), SPLIT)
    const child = (path: string) => ({
      queue: 'work',
      payload: path,
      target: { type: 'http', url: sink.url(path) },
    })

    const parent = await submit(node, {
      queue: 'work',
      payload: {
        api: await node.listening,
        authorization: node.headers().authorization,
        children: [child('/ok'), child('/held'), child('/broken')],
      },
      target: { type: 'handler', name: 'split' },
    })
    const waiting = await until(
      async () => {
        const task = await read(node, parent)
        return task.children?.live === 1 && task.attempts.length === 1 ? task : undefined
      },
      { what: 'the parent to wait for its held child', timeoutMs: 30_000 },
    )
    expect(waiting).toMatchObject({
      status: 'running',
      waitingFor: { cause: 'children' },
      children: { total: 3, succeeded: 1, dead: 1, live: 1 },
    })

    held.resolve()
    const ended = await reached(node, parent)
    expect(ended).toMatchObject({ status: 'dead', children: { total: 3, succeeded: 2, dead: 1, live: 0 } })
    expect(ended.error).toContain('1 of 3 children')

    broken = false
    await node.call('POST', `/tasks/${parent}/replay`)
    const replayed = await reached(node, parent, ['succeeded'])
    expect(replayed.children).toEqual({ total: 3, succeeded: 3, dead: 0, live: 0 })
    // Only the dead child was sent again.
    expect(sink.requests.map(({ path }) => path).sort()).toEqual(['/broken', '/broken', '/held', '/ok'])
    await node.stop()
  }, 120_000)

  test(`${engine}: an http target submits children of the very task that it answers`, async () => {
    await using home = await install(engine)
    await using sink = await startSink()
    const node = await home.start()
    sink.reply = async ({ path, task }) => {
      if (path !== '/parent') return {}
      await submit(node, { payload: 1, target: { type: 'http', url: sink.url('/child') }, parentId: task })
      return { status: 202 }
    }
    const parent = await submit(node, { payload: 1, target: { type: 'http', url: sink.url('/parent') } })
    expect(await reached(node, parent)).toMatchObject({
      status: 'succeeded',
      children: { total: 1, succeeded: 1, dead: 0, live: 0 },
    })
    expect(sink.requests.map(({ path }) => path)).toEqual(['/parent', '/child'])
    const late = await node.request('POST', '/tasks', {
      payload: 1,
      target: { type: 'http', url: sink.url('/child') },
      parentId: parent,
    })
    expect(late).toMatchObject({ status: 409, body: { code: 'parent-final' } })
    await node.stop()
  }, 120_000)
}
