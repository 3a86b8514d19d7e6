import { afterAll, beforeAll, expect, test } from 'bun:test'
import { type NodeFolder, type NodeProcess, nodeFolder, startNode } from '../support/node-process.ts'
import { longshore } from './cli.ts'

let folder: NodeFolder
let node: NodeProcess
let url: string
beforeAll(async () => {
  folder = await nodeFolder()
  node = await startNode(folder)
  url = await node.listening
}, 30_000)
afterAll(async () => {
  await node.stop()
  await folder[Symbol.asyncDispose]()
}, 30_000)

const run = (...args: string[]) => longshore(args, { cwd: folder.path, env: { LONGSHORE_URL: url } })

test('queue set knows the whole policy, and what is not named stays', async () => {
  const set = await run(
    ...['queue', 'set', 'orders', '--max-priority', '5', '--window', '500', '--report-within', '10m'],
    ...['--order', 'random', '--dead-letter', 'no', '--json'],
  )
  const policy = { maxPriority: 5, window: 500, reportWithin: '10m', order: 'random', deadLetter: false }
  expect(set.json()).toMatchObject({ ...policy, type: 'classic' })
  const later = await run('queue', 'set', 'orders', '--keep-dead', '1d', '--json')
  expect(later.json()).toMatchObject({ ...policy, type: 'classic', retention: { dead: '1d' } })
  const shown = await run('queue', 'get', 'orders')
  expect(shown.out).toMatch(/^type +classic, priorities up to 5$/m)
  expect(shown.out).toMatch(/^settlement +outcome, reported within 10m$/m)
  const off = await run(
    ...['queue', 'set', 'orders', '--max-priority', 'none', '--window', 'auto', '--report-within', 'none', '--json'],
  )
  expect(off.json()).toMatchObject({
    type: 'quorum',
    maxPriority: null,
    window: null,
    reportWithin: null,
    order: 'random',
  })
  expect((await run('queue', 'set', 'orders', '--window', 'wide')).code).toBe(2)
  expect((await run('queue', 'set', 'orders', '--max-priority', '5', '--type', 'quorum')).err).toContain('/maxPriority')
})

test('queue resend, purge --queued and delete say what they do, and what stands in their way', async () => {
  await run('queue', 'set', 'leaving')
  await run('task', 'submit', '-q', 'leaving')
  expect((await run('queue', 'resend', 'leaving')).out).toBe('Sends 0 tasks again\n')
  expect(await run('queue', 'purge', 'leaving', '--queued', 'return')).toMatchObject({
    code: 2,
    err: expect.stringContaining('0 tasks of "leaving" are at RabbitMQ and would be returned'),
  })
  expect((await run('queue', 'purge', 'leaving', '--queued', 'return', '--yes')).out).toBe('Returned 0 tasks\n')
  expect(await run('queue', 'delete', 'leaving')).toMatchObject({ code: 1, err: expect.stringContaining('not final') })
  expect((await run('queue', 'delete', 'leaving', '--with-tasks')).out).toBe('The queue "leaving" is deleted\n')
  expect((await run('queue', 'get', 'leaving')).code).toBe(1)
})

test('exchanges are made, bound, shown, unbound and deleted', async () => {
  await run('queue', 'set', 'emails')
  expect((await run('exchange', 'set', 'events', '--type', 'topic')).out).toMatch(/^bindings +none$/m)
  expect((await run('exchange', 'set', 'events', '--type', 'fanout')).code).toBe(1)
  expect((await run('exchange', 'set', 'events')).code).toBe(2)
  expect((await run('exchange', 'bind', 'events', 'emails', '--key', 'a.*')).out).toBe(
    'The queue "emails" gets what is published to "events" with "a.*"\n',
  )
  expect((await run('exchange', 'bind', 'events', 'nowhere')).err).toContain('there is no queue "nowhere"')
  expect((await run('exchange', 'list')).out).toMatch(/^events +topic +emails \(a\.\*\)$/m)
  expect((await run('exchange', 'get', 'events', '--json')).json()).toMatchObject({
    bindings: [{ queue: 'emails', routingKey: 'a.*' }],
  })
  expect((await run('exchange', 'delete', 'events')).err).toContain('has bindings')
  expect((await run('exchange', 'unbind', 'events', 'emails', '--key', 'a.*')).code).toBe(0)
  expect((await run('exchange', 'delete', 'events')).out).toBe('The exchange "events" is deleted\n')
})

test('a dead letter is mended, replayed to another queue, and many at a rate', async () => {
  await run('queue', 'set', 'again')
  const dead = async (type: string) => {
    const target = '{"type":"noop","deadRate":1}'
    return (await run('task', 'submit', '--target', target, '-t', type, '-p', '{"n":1}', '--wait', '--json')).json<{
      id: string
    }>().id
  }
  const id = await dead('one')
  const mended = await run('task', 'mend', id, '--payload', '{"n":12345678901234567890}', '--json')
  expect(mended.out).toContain('"payload":{"n":12345678901234567890}')
  expect((await run('task', 'replay', id, '--to', 'nowhere')).err).toContain('there is no queue "nowhere"')
  expect((await run('task', 'replay', id, '--rate', '5')).code).toBe(2)
  expect((await run('task', 'replay', id, '--to', 'again', '--json')).json()).toMatchObject({
    queue: 'again',
    status: 'pending',
  })
  for (let n = 0; n < 3; n++) await dead('many')
  const many = await run('task', 'replay', '-t', 'many', '--rate', '1', '--to', 'again')
  expect(many).toMatchObject({ code: 0, out: '3 replayed\n' })
  const { items } = (await run('task', 'list', '-q', 'again', '-t', 'many', '--json')).json<{
    items: { dueAt: string }[]
  }>()
  const due = items.map(({ dueAt }) => Date.parse(dueAt)).toSorted()
  expect((due[2] ?? 0) - (due[1] ?? 0)).toBe(1_000)
}, 30_000)
