import { expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { ENGINES } from '../support/database.ts'
import { type LogLine, processesIn } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, read, submit, type Task } from './installation.ts'

for (const engine of ENGINES) {
  test(`${engine}: a task goes from REST to its target, is tried again, becomes a dead letter, comes back, and a restart keeps all of it`, async () => {
    await using home = await install(engine)
    await using sink = await startSink()
    let broken = true
    sink.reply = ({ path, attempt }) => {
      if (path === '/unsteady' && attempt <= 2) return { status: 500, body: 'not yet' }
      if (path === '/broken' && broken) return { status: 503, body: 'out of order' }
      return { body: `thanks for ${path}` }
    }
    const first = await home.start()
    await makeQueue(first, 'quick')

    const posted = await first.request<Task>('POST', '/tasks', {
      payload: { n: 1 },
      target: { type: 'http', url: sink.url('/hook') },
    })
    expect(posted.status).toBe(201)
    expect(posted.headers.get('location')).toBe(`/api/v1/tasks/${posted.body.id}`)
    const hook = await reached(first, posted.body.id)
    expect(hook).toMatchObject({
      status: 'succeeded',
      attempt: 1,
      failures: 0,
      error: null,
      waitingFor: null,
      attempts: [{ number: 1, outcome: 'succeeded', error: null, response: { status: 200, body: 'thanks for /hook' } }],
    })
    expect(sink.requests).toMatchObject([{ method: 'POST', path: '/hook', body: '{"n":1}', task: hook.id, attempt: 1 }])

    const target = (path: string) => ({ queue: 'quick', payload: null, target: { type: 'http', url: sink.url(path) } })
    const unsteady = await reached(first, await submit(first, target('/unsteady')))
    const failure = { outcome: 'failed', response: { status: 500, body: 'not yet' } }
    expect(unsteady).toMatchObject({
      status: 'succeeded',
      attempt: 3,
      failures: 2,
      attempts: [
        { number: 1, ...failure },
        { number: 2, ...failure },
        { number: 3, outcome: 'succeeded', response: { status: 200 } },
      ],
    })

    const dead = await reached(first, await submit(first, target('/broken')))
    expect(dead).toMatchObject({ status: 'dead', attempt: 3, failures: 3 })
    expect(dead.error).toContain('503 Service Unavailable')
    const neverMended = await reached(first, await submit(first, target('/broken')))
    broken = false
    await first.call('POST', `/tasks/${dead.id}/replay`)
    const replayed = await reached(first, dead.id, ['succeeded'])
    expect(replayed).toMatchObject({ attempt: 4, failures: 0, attempts: [{}, {}, {}, { number: 4 }] })

    const later = await submit(first, { ...target('/later'), delay: '2s' })
    await first.stop()
    expect(processesIn(home.path)).toEqual([])

    const second = await home.start()
    for (const task of [hook, unsteady, replayed, neverMended]) expect(await read(second, task.id)).toEqual(task)
    await reached(second, later, ['succeeded'])
    await second.call('POST', `/tasks/${neverMended.id}/replay`)
    await reached(second, neverMended.id, ['succeeded'])
    expect(await second.call('GET', '/accounting')).toMatchObject({
      accepted: 5,
      succeeded: 5,
      live: 0,
      unaccounted: 0,
    })
    await second.stop()
    // Other tests may have all connections of the server.
    const isCrowded = ({ error }: LogLine) => /too many clients|connection slots/.test(String(error))
    expect(second.log.filter((line) => line.level !== 'info' && !isCrowded(line))).toEqual([])
    expect(existsSync(`${home.path}/data/postgres`)).toBe(engine === 'embedded')
  }, 180_000)

  test(`${engine}: SIGTERM ends the work in hand until the deadline and gives the rest back without a spent failure`, async () => {
    await using home = await install(engine)
    await using sink = await startSink()
    sink.reply = ({ path }) => (path === '/hangs' ? 'hang' : { delayMs: path === '/slow' ? 700 : 0 })
    const first = await home.start({ SHUTDOWN_TIMEOUT: '5s' })
    const target = (path: string) => ({ payload: 1, target: { type: 'http', url: sink.url(path) } })
    const slow = await submit(first, target('/slow'))
    const hangs = await submit(first, target('/hangs'))
    await until(() => sink.requests.length === 2, { what: 'both requests at the sink', timeoutMs: 30_000 })

    await first.stop()
    expect(first.log.map((line) => line.event)).toContain('shutdown-deadline')
    sink.reply = () => ({})

    const second = await home.start()
    expect(await read(second, slow)).toMatchObject({ status: 'succeeded', attempt: 1 })
    const again = await reached(second, hangs)
    expect(again).toMatchObject({ status: 'succeeded', failures: 0, attempt: 2, attempts: [{ number: 2 }] })
    // Nobody had to be declared dead for that.
    expect(second.logged('node-dead')).toEqual([])
    await second.stop()
  }, 180_000)

  test(`${engine}: a second SIGTERM ends the process at once`, async () => {
    await using home = await install(engine)
    await using sink = await startSink({ reply: () => 'hang' })
    const node = await home.start({ SHUTDOWN_TIMEOUT: '10m' })
    await submit(node, { payload: 1, target: { type: 'http', url: sink.url() } })
    await until(() => sink.requests.length === 1, { what: 'the request at the sink', timeoutMs: 30_000 })
    node.signal('SIGTERM')
    await until(() => node.logged('stopping').length === 1, {
      what: 'the node to say that it stops',
      timeoutMs: 30_000,
    })
    const asked = performance.now()
    node.signal('SIGTERM')
    expect(await node.exited).toBe(1)
    expect(performance.now() - asked).toBeLessThan(15_000)
  }, 180_000)
}
