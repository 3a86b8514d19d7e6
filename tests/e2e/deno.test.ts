import { expect, test } from 'bun:test'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import { ENGINES } from '../support/database.ts'
import { denoCommand, denoPath } from '../support/deno.ts'
import { type NodeProcess, processesIn } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, read, submit } from './installation.ts'

function memberOf(node: NodeProcess, path: string): Promise<Response> {
  return node.listening.then((url) => fetch(`${url}${path}`, { headers: node.headers() }))
}

test('the Deno that is tested is the pinned one', () => {
  const { stdout } = Bun.spawnSync([denoPath(), '--version'])
  expect(stdout.toString()).toStartWith(`deno ${manifest.devDependencies.deno} `)
})

for (const engine of ENGINES) {
  test(`${engine}: on Deno a task goes from REST to its target, is tried again, dies, comes back, and a restart keeps all of it`, async () => {
    await using home = await install(engine)
    await using sink = await startSink()
    let broken = true
    sink.reply = ({ path, attempt }) => {
      if (path === '/unsteady' && attempt <= 2) return { status: 500, body: 'not yet' }
      if (path === '/broken' && broken) return { status: 503 }
      return { body: `thanks for ${path}` }
    }
    const command = denoCommand()
    const first = await home.start({}, { command })
    await makeQueue(first, 'quick')
    const target = (path: string, host?: string) => ({ type: 'http', url: sink.url(path, host) })

    const hook = await reached(first, await submit(first, { payload: { n: 1 }, target: target('/hook') }))
    expect(hook).toMatchObject({
      status: 'succeeded',
      attempts: [{ response: { status: 200, body: 'thanks for /hook' } }],
    })
    expect(sink.requests).toMatchObject([{ method: 'POST', path: '/hook', body: '{"n":1}', task: hook.id }])

    const unsteady = await submit(first, { queue: 'quick', payload: null, target: target('/unsteady') })
    expect(await reached(first, unsteady)).toMatchObject({ status: 'succeeded', attempt: 3, failures: 2 })
    const dead = await submit(first, { queue: 'quick', payload: null, target: target('/broken') })
    expect(await reached(first, dead)).toMatchObject({ status: 'dead', failures: 3 })
    broken = false
    await first.call('POST', `/tasks/${dead}/replay`)
    await reached(first, dead, ['succeeded'])

    for (const path of ['/docs', '/docs/swagger-ui-bundle.js', '/openapi.json']) {
      expect((await memberOf(first, path)).status).toBe(200)
    }
    const later = await submit(first, { queue: 'quick', payload: null, target: target('/later'), delay: '2s' })
    await first.stop()
    expect(processesIn(home.path)).toEqual([])

    const second = await home.start({}, { command })
    expect(await read(second, hook.id)).toEqual(hook)
    await reached(second, later, ['succeeded'])
    expect(await second.call('GET', '/accounting')).toMatchObject({
      accepted: 4,
      succeeded: 4,
      live: 0,
      unaccounted: 0,
    })
    await second.stop()
  }, 200_000)
}

test('on Deno what is made can be deleted', async () => {
  await using home = await install('embedded')
  const node = await home.start({}, { command: denoCommand() })
  await makeQueue(node, 'gone')
  const { items } = await node.call<{ items: { id: string }[] }>('GET', '/consumers?queue=gone')
  const key = await node.call<{ id: string }>('POST', '/keys', { name: 'gone', scopes: ['read'] })
  const schedule = { cron: '0 3 * * *', task: { payload: 1, target: { type: 'http', url: 'http://127.0.0.1:1/' } } }
  await node.call('PUT', '/schedules/gone', schedule)
  const task = await submit(node, { payload: 1, target: { type: 'noop' } })
  await reached(node, task)
  const paths = [...items.map(({ id }) => `/consumers/${id}`), '/queues/gone', `/keys/${key.id}`]
  for (const path of [...paths, '/schedules/gone', `/tasks/${task}`]) {
    expect([path, (await node.request('DELETE', path)).status]).toEqual([path, 204])
  }
  await node.stop()
}, 120_000)

test('on Deno handlers run in threads: a result, a log, one that exits, one that never returns', async () => {
  await using home = await install('embedded')
  const handler = (name: string, body: string) => writeFileSync(join(home.path, 'handlers', `${name}.ts`), body)
  handler(
    'double',
    `import { isMainThread } from 'node:worker_threads'
     export default async (payload: { n: number }, { log }: { log(line: string): void }) => {
       log('at work')
       return { twice: payload.n * 2, isMainThread }
     }`,
  )
  handler('exits', 'export default () => process.exit(3)')
  handler('loops', 'export default () => { for (;;); }')
  const node = await home.start({}, { command: denoCommand() })
  await makeQueue(node, 'once', { maxAttempts: 1 })
  const ask = (name: string, more: object = {}) =>
    submit(node, { queue: 'once', payload: { n: 21 }, target: { type: 'handler', name }, ...more })

  expect(await reached(node, await ask('double'))).toMatchObject({
    status: 'succeeded',
    result: { twice: 42, isMainThread: false },
    logs: ['at work'],
  })
  const exited = await reached(node, await ask('exits'), ['dead'], 60_000)
  expect(exited.error).toContain('exited with code 3')
  const looped = await reached(node, await ask('loops', { timeout: '1s' }), ['dead'], 60_000)
  expect(looped.error).toContain('its thread was ended')
  expect(await reached(node, await ask('double'))).toMatchObject({ status: 'succeeded' })
  await node.stop()
}, 200_000)

test('on Deno a target is connected to at the very address that was checked', async () => {
  await using sink = await startSink()
  const attempt = async (url: string, names: Record<string, string[]>) => {
    const request = JSON.stringify({ target: { url }, names })
    const deno = Bun.spawn([
      denoPath(),
      'run',
      '--allow-all',
      join(import.meta.dir, '../targets/http-attempt.ts'),
      request,
    ])
    return JSON.parse(await new Response(deno.stdout).text()) as { kind: string; error?: string }
  }
  // The name exists for our lookup only: who gets there has used it.
  const url = sink.url('/hook', 'pinned.example')
  expect(await attempt(url, { 'pinned.example': ['127.0.0.1'] })).toMatchObject({ kind: 'succeeded' })
  expect(sink.requests).toHaveLength(1)
  const refused = await attempt(url, { 'pinned.example': ['169.254.169.254'] })
  expect(refused).toMatchObject({ kind: 'failed', error: expect.stringContaining('metadata address') })
  expect(sink.requests).toHaveLength(1)
}, 90_000)

test('on Deno a second SIGTERM ends the process at once', async () => {
  await using home = await install('embedded')
  await using sink = await startSink({ reply: () => 'hang' })
  const node = await home.start({ SHUTDOWN_TIMEOUT: '10m' }, { command: denoCommand() })
  await submit(node, { payload: 1, target: { type: 'http', url: sink.url() } })
  await until(() => sink.requests.length === 1, { what: 'the request at the sink', timeoutMs: 30_000 })
  node.signal('SIGTERM')
  await until(() => node.logged('stopping').length === 1, {
    what: 'the node to say that it stops',
    timeoutMs: 30_000,
  })
  node.signal('SIGTERM')
  expect(await node.exited).toBe(1)
}, 120_000)
