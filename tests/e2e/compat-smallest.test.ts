import { expect, test } from 'bun:test'
import { testBroker } from '../support/brokers.ts'
import { ENGINES } from '../support/database.ts'
import { BROKERS } from '../support/rabbitmq.ts'
import { install, reached, read, type Task } from './installation.ts'
import { callOld, expectOld } from './old-client.ts'

for (const name of BROKERS) {
  test(`${name}: a job is added by POST or by its text in the path, printed, and takes a second for each dot`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const node = await home.start(broker.env)
    const texts = [
      'Hello',
      'two words',
      'a/b//c/',
      'Grüße, 世界 👋',
      '100% + "quoted" & <b>?x=1#y',
      `line\nbreak\ttab`,
      '{"not": "a body"}',
    ]
    for (const text of texts) {
      const path = encodeURIComponent(text)
      for (const [method, at, json] of [
        ['POST', '/create-job', { message: text }],
        ['GET', `/create-job/${path}`, undefined],
        ['GET', `/add-job/${path.replaceAll('%2F', '/')}`, undefined],
      ] as const) {
        const accepted = await expectOld(node, 202, method, at, { ...(json && { json }) })
        expect(accepted).toEqual({ id: expect.any(String), message: ` ___ Sent: ${text}` })
        expect(await reached(node, accepted.id)).toMatchObject({ status: 'succeeded', logs: [text] })
        expect(await node.call('GET', `/tasks/${accepted.id}`)).toMatchObject({
          queue: 'task_queue',
          payload: text,
          origin: 'compat',
        })
      }
    }

    const { id } = await expectOld(node, 202, 'GET', '/create-job/one.two.')
    await reached(node, id)
    const task = await node.call<{ startedAt: string; finishedAt: string }>('GET', `/tasks/${id}`)
    expect(Date.parse(task.finishedAt) - Date.parse(task.startedAt)).toBeWithin(1_990, 15_000)
    await node.stop()
  }, 150_000)

  test(`${name}: what is no text is refused and nothing is added, and a look or another site's page adds nothing`, async () => {
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const node = await home.start(broker.env)
    const count = async () => (await node.call<{ items: Task[] }>('GET', '/tasks?queue=task_queue')).items.length
    await expectOld(node, 202, 'GET', '/create-job/first')
    for (const json of [{}, { message: '' }, { message: 7 }, { message: null }, { message: 'x', more: 1 }, [], 'x'])
      await expectOld(node, 400, 'POST', '/create-job', { json })
    for (const body of ['', 'Hello', new Uint8Array([0x22, 0xff, 0x22])])
      await expectOld(node, 400, 'POST', '/create-job', { body })
    await expectOld(node, 413, 'POST', '/create-job', { json: { message: 'x'.repeat(1_048_576) } })
    for (const path of ['/create-job/', '/create-job/%FF', '/create-job/a%00b', '/add-job/%'])
      await expectOld(node, 400, 'GET', path)
    await expectOld(node, 405, 'GET', '/create-job')
    await expectOld(node, 404, 'GET', '/create-jobs/x')
    expect((await callOld(node, 'GET', '/create-job/x', { key: null })).status).toBe(401)
    const head = await callOld(node, 'HEAD', '/create-job/x')
    expect([head.status, head.headers.get('allow')]).toEqual([405, 'GET'])
    const elsewhere = await fetch(`${await node.listening}/create-job/x`, {
      headers: { ...node.headers(), 'sec-fetch-site': 'cross-site' },
    })
    expect(elsewhere.status).toBe(403)
    expect(await count()).toBe(1)
    await node.stop()
  }, 150_000)

  test.if(ENGINES.includes('server'))(
    `${name}: jobs that were accepted before there was a worker run when there is one, a thousand at once as well`,
    async () => {
      await using home = await install('server')
      await using broker = await testBroker(name)
      const server = await home.start({ ...broker.env, LONGSHORE_ROLES: 'api,scheduler' })
      const jobs = await Promise.all(
        Array.from({ length: 1_000 }, (_, n) => expectOld(server, 202, 'GET', `/create-job/job%20${n}`)),
      )
      expect(new Set(jobs.map(({ id }) => id)).size).toBe(1_000)
      const consumers = await server.call<{ items: object[] }>('GET', '/consumers?queue=task_queue')
      expect(consumers.items).toHaveLength(1)
      expect((await read(server, jobs[0].id)).status).toBe('pending')
      const worker = await home.start({ ...broker.env, LONGSHORE_ROLES: 'dispatcher,worker' })
      for (const { id } of jobs) await reached(server, id, ['succeeded'], 60_000)
      await worker.stop()
      await server.stop()
    },
    240_000,
  )
}
