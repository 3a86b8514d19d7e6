import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { listen, type SeenEvent } from '../support/event-stream.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { install, makeQueue, reached, submit } from './installation.ts'

const url = async (node: NodeProcess, query = '') => `${await node.listening}/api/v1/events${query}`
const isTask = (id: string, status: string) => (event: SeenEvent) =>
  event.event === 'task' && event.data.id === id && event.data.status === status
const noop = (queue: string, more = {}) => ({ queue, payload: { secret: 1 }, target: { type: 'noop' }, ...more })

test('a client sees tasks change, a filter keeps the others away, and a task of another node is seen too', async () => {
  await using home = await install('server')
  const first = await home.start({ LONGSHORE_ADMIN_KEY: 'an-admin-key-for-the-events' })
  const second = await home.start({
    LONGSHORE_ADMIN_KEY: 'an-admin-key-for-the-events',
    LONGSHORE_ROLES: 'api',
    DATA_DIR: `${home.path}/second`,
  })
  await makeQueue(first, 'mail')
  await makeQueue(first, 'other')
  const all = await listen(await url(first), first.headers())
  const far = await listen(await url(second), second.headers())
  const dead = await listen(await url(second, '?kinds=task&queue=mail&status=dead,succeeded&type=b'), second.headers())

  const here = await submit(first, noop('mail', { type: 'a' }))
  const there = await submit(second, noop('mail', { type: 'b' }))
  const other = await submit(second, noop('other', { type: 'b' }))
  for (const stream of [all, far]) {
    for (const id of [here, there, other]) await stream.seen(isTask(id, 'succeeded'), `the end of ${id}`)
  }
  const told = await dead.seen(isTask(there, 'succeeded'), 'the end of the task that the filter names')
  expect(told.data).toEqual({
    id: there,
    queue: 'mail',
    type: 'b',
    status: 'succeeded',
    attempt: 1,
    parentId: null,
    origin: 'api',
  })
  expect(new Set(dead.events.filter(({ event }) => event !== 'reset').map(({ data }) => data.id))).toEqual(
    new Set([there]),
  )
  await all.seen(({ event, data }) => event === 'node' && data.status === 'alive', 'a node', 30_000)

  await second.stop()
  await all.seen(({ event, data }) => event === 'node' && data.status === 'left', 'the node that left', 30_000)
  await all.seen(
    ({ event, data }) => event === 'queue' && data.queue === 'mail' && data.depth.running === 0,
    'the queue',
    30_000,
  )
  await Promise.all([all, far, dead].map((stream) => stream.close()))
  await first.stop()
}, 150_000)

test('a client that comes back sees what it missed, or is told to read again', async () => {
  await using home = await install('server')
  const node = await home.start()
  await makeQueue(node, 'mail')
  const held = await listen(await url(node), node.headers())
  const before = await listen(await url(node, '?kinds=task'), node.headers())
  await before.seen(isTask(await submit(node, noop('mail')), 'succeeded'), 'the first task')
  await before.close()

  const missed = await submit(node, noop('mail'))
  await held.seen(isTask(missed, 'succeeded'), 'the task that the other client misses')
  const back = await listen(await url(node, '?kinds=task'), { ...node.headers(), 'last-event-id': before.lastId() })
  await back.seen(isTask(missed, 'succeeded'), 'what was missed')
  const live = await submit(node, noop('mail'))
  const backEnd = await back.seen(isTask(live, 'succeeded'), 'what happens after the return')
  const heldEnd = await held.seen(isTask(live, 'succeeded'), 'the same, to the other client')
  // Another client heard all of it: nothing is missing, and nothing comes again that did not come to it twice.
  const tasksUntil = (end: SeenEvent, events: SeenEvent[]) =>
    events.slice(0, events.indexOf(end) + 1).flatMap(({ event, data }) => (event === 'task' ? [data] : []))
  expect(tasksUntil(backEnd, [...before.events, ...back.events])).toEqual(tasksUntil(heldEnd, held.events))
  expect(back.events.map(({ event }) => event)).not.toContain('reset')

  for (const id of ['0', '999999999', 'nonsense']) {
    const lost = await listen(await url(node, '?kinds=task'), { ...node.headers(), 'last-event-id': id })
    expect((await lost.seen(() => true, 'an answer')).event).toBe('reset')
    await lost.close()
  }
  await held.close()
  await back.close()
  await node.stop()
}, 150_000)

test('a wrong filter is refused, a key without read too', async () => {
  await using home = await install('server')
  const node = await home.start()
  for (const query of ['kinds=files', 'status=done', 'parentId=7', 'createdAfter=2026-01-01T00:00:00Z', 'nonsense=1']) {
    expect((await node.request('GET', `/events?${query}`)).status).toBe(422)
  }
  // HEAD takes no place: it would never be given back.
  const head = await fetch(await url(node), { method: 'HEAD', headers: node.headers() })
  expect(head.headers.get('content-type')).toStartWith('text/event-stream')
  const metrics = await fetch(`${await node.listening}/metrics`, { headers: node.headers() })
  expect(await metrics.text()).toContain('\nlongshore_event_clients 0\n')
  const { key } = await node.call<{ key: string }>('POST', '/keys', { name: 'submits', scopes: ['work'] })
  expect((await fetch(await url(node), { headers: { authorization: `Bearer ${key}` } })).status).toBe(403)
  await node.stop()
}, 150_000)

test('1,000 clients listen on one node, the next one is told to come later, and stopping ends them all', async () => {
  await using home = await install('server')
  const node = await home.start()
  await makeQueue(node, 'mail')
  const address = await url(node, '?kinds=task')
  // Sockets, because fetch opens 256 connections at most.
  const sockets = Array.from({ length: 1_000 }, () => listenBySocket(node, address))
  await until(() => sockets.every(({ text }) => text().includes('longshore events')), {
    what: 'every client to listen',
    timeoutMs: 60_000,
  })
  const refused = await fetch(address, { headers: node.headers() })
  expect(refused.status).toBe(503)
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(await refused.json()).toMatchObject({ code: 'overloaded' })

  const id = await submit(node, noop('mail'))
  const told = (text: string) => text.includes(`{"id":"${id}","queue":"mail","type":null,"status":"succeeded"`)
  await until(() => sockets.every(({ text }) => told(text())), {
    what: 'every client to see the task',
    timeoutMs: 60_000,
  })
  sockets[0]?.socket.destroy()
  const next = await until(() => listen(address, node.headers()).catch(() => undefined), { what: 'a free place' })
  await node.stop()
  await until(() => next.ended() && sockets.every(({ socket }) => socket.closed), {
    what: 'the end of every stream',
    timeoutMs: 30_000,
  })
}, 240_000)

const residentMb = ({ pid }: NodeProcess) => Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) / 256

function listenBySocket(node: NodeProcess, address: string) {
  const { hostname, port, pathname, search } = new URL(address)
  const socket = createConnection({ host: hostname, port: Number(port) })
  let text = ''
  socket.on('error', () => {})
  socket.on('data', (chunk) => {
    text += chunk
  })
  socket.write(
    `GET ${pathname}${search} HTTP/1.1\r\nhost: localhost:1\r\nauthorization: ${node.headers().authorization}\r\n\r\n`,
  )
  return { socket, text: () => text }
}

test('a client that never reads is cut, and the node does not grow', async () => {
  await using home = await install('server')
  const node = await home.start()
  await makeQueue(node, 'mail', { concurrency: 200 })
  const { socket: deaf } = listenBySocket(node, await url(node, '?kinds=task'))
  deaf.pause()
  const reader = await listen(await url(node, '?kinds=task&status=succeeded'), node.headers())
  const before = residentMb(node)
  const batch = Array.from({ length: 5_000 }, () => noop('mail', { type: 'x'.repeat(128) }))
  for (let sent = 0; sent < 60_000 && node.logged('events-client-cut').length === 0; sent += batch.length) {
    const { ids } = await node.call<{ ids: string[] }>('POST', '/tasks/batch', batch)
    await reached(node, ids.at(-1) as string, ['succeeded'], 120_000)
  }
  await until(() => node.logged('events-client-cut').length === 1, {
    what: 'the client that never reads to be cut',
    timeoutMs: 30_000,
  })
  const last = await submit(node, noop('mail'))
  await reader.seen(isTask(last, 'succeeded'), 'the others to go on', 60_000)
  await until(() => residentMb(node) - before < 300, { what: 'the node not to have grown', timeoutMs: 30_000 })
  const own = `0100007F:${(deaf.localPort ?? 0).toString(16).toUpperCase().padStart(4, '0')}`
  const open = () => readFileSync('/proc/net/tcp', 'utf8').includes(`${own} 01 `)
  await until(() => !open(), { what: 'the node to close the connection, though nobody reads it', timeoutMs: 60_000 })
  deaf.resume()
  await until(() => deaf.closed, { what: 'its connection to be closed' })
  await reader.close()
  await node.stop()
}, 400_000)
