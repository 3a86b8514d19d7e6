import { expect, test } from 'bun:test'
import { createEventFeed, type EventFeedDeps } from '../../../src/api/events/feed.ts'
import type { EventFilter } from '../../../src/api/events/filter.ts'
import { ManualClock } from '../../../src/runtime/clock.ts'
import { createLog } from '../../../src/runtime/log.ts'
import type { EventBatch, TaskChange } from '../../../src/store/events.ts'
import type { ReadFile } from '../../../src/store/files/list.ts'
import type { NodeView } from '../../../src/store/node-list.ts'
import type { QueueFigures } from '../../../src/store/topology/queues.ts'
import { until } from '../../support/until.ts'

const DEPTH = { pending: 1, queued: 0, running: 0, retrying: 0, dead: 0 }
const figures = (pending: number): QueueFigures => ({ depth: { ...DEPTH, pending }, oldestWaitingMs: null })
const change = (id: string, queue = 'q'): TaskChange => ({
  ...{ id, queue, type: null, status: 'running', attempt: 1, parentId: null, origin: 'api' },
})

const file = (source: string, changes: Partial<ReadFile> = {}): ReadFile => ({
  ...{
    id: source,
    sourceId: 's',
    source,
    path: '/a.csv',
    generation: 1,
    status: 'importing',
    size: 1_000,
    modified: null,
  },
  ...{ sha256: null, paused: false, taskId: 't', bytesRead: 100, recordsRead: 10, recordsRejected: 0 },
  ...{ tasks: { total: 10, succeeded: 0, dead: 0 }, after: null, afterError: null, location: null, duplicateOf: null },
  ...{ failures: 0, error: null, seenAt: '2026-01-01T00:00:00.000Z', fetchedAt: '2026-01-01T00:00:01.000Z' },
  ...{ importedAt: null, finishedAt: null, attemptMs: 1_000, attemptBytes: 100, attemptRecords: 10 },
  ...changes,
})

function feedUnderTest(more: Partial<EventFeedDeps> = {}) {
  const clock = new ManualClock()
  const state = {
    batches: [] as EventBatch[],
    queues: new Map<string, QueueFigures>(),
    nodes: [] as NodeView[],
    files: [] as ReadFile[],
    asked: [] as string[],
    wants: 0,
    cuts: 0,
    away: false,
  }
  const feed = createEventFeed({
    clock,
    log: createLog('silent'),
    async read(after, limit) {
      return state.batches.filter(({ id }) => id > after).slice(0, limit)
    },
    last: async () => state.batches.at(-1)?.id ?? 0,
    missed: async () => undefined,
    async want() {
      if (state.away) throw new Error('the database is away')
      state.wants++
    },
    queues: async () => state.queues,
    nodes: async () => state.nodes,
    async files(ids) {
      state.asked = ids
      return state.files
    },
    onCut: () => state.cuts++,
    ...more,
  })
  function tell(...changes: TaskChange[]) {
    state.batches.push({ id: state.batches.length + 1, changes })
    feed.look()
  }
  return { clock, feed, state, tell }
}

type Feed = ReturnType<typeof feedUnderTest>['feed']

/** A client that reads; `text` is what it got. */
async function reader(feed: Feed, filter: EventFilter = { kinds: ['task'] }) {
  const { stream } = await feed.open(filter, undefined)
  let text = ''
  let ended = false
  void (async () => {
    const decoder = new TextDecoder()
    try {
      for await (const chunk of stream as unknown as AsyncIterable<Uint8Array>) text += decoder.decode(chunk)
    } catch {
      // Cut.
    }
    ended = true
  })()
  await until(() => text.includes('longshore events'), { what: 'the greeting' })
  return { text: () => text, ended: () => ended }
}

test('a quiet stream beats every 10 s with the id to come back with, and the wish for events is renewed', async () => {
  const { clock, feed, state, tell } = feedUnderTest()
  const client = await reader(feed)
  tell(change('other', 'other'))
  for (let second = 0; second < 21; second++) {
    clock.advance(1_000)
    await until(() => state.wants >= Math.floor(second / 10), { what: 'the lease' })
    await new Promise((resolve) => setImmediate(resolve))
  }
  await until(() => client.text().split(': beat\nid: 1\n\n').length === 3, { what: 'two beats' })
  expect(state.wants).toBe(3)
  await feed.stop()
  await until(client.ended, { what: 'the end of the stream' })
})

test('when all clients together are too slow, the slowest is cut and the others stay', async () => {
  const { feed, state, tell } = feedUnderTest({ maxTotalBytes: 20_000 })
  const { cutSignal } = await feed.open({ kinds: ['task'] }, undefined)
  await feed.open({ kinds: ['task'], queue: 'rare' }, undefined)
  const client = await reader(feed)
  while (!cutSignal.aborted) {
    const before = client.text().length
    tell(...Array.from({ length: 20 }, (_, n) => change(`task-${n}`)))
    await until(() => client.text().length > before, { what: 'the reader to read' })
  }
  expect(state.cuts).toBe(1)
  expect(feed.clients()).toBe(2)
  await feed.stop()
})

test('a client that cannot be served is told so, and takes no place', async () => {
  const { feed, state } = feedUnderTest({ maxClients: 1 })
  state.away = true
  await expect(feed.open({}, undefined)).rejects.toThrow('the database is away')
  state.away = false
  await reader(feed)
  await expect(feed.open({}, undefined)).rejects.toMatchObject({ code: 'overloaded' })
  feed.closeAll()
  expect(feed.clients()).toBe(0)
  await reader(feed)
  await feed.stop()
  await expect(feed.open({}, undefined)).rejects.toMatchObject({ code: 'shutting-down' })
})

test('figures are told whole at first, then when they differ, and when there are none any more', async () => {
  const { clock, feed, state } = feedUnderTest()
  state.queues.set('a', figures(1)).set('b', figures(1))
  const one = await reader(feed, { kinds: ['queue'], queue: 'a' })
  const both = await reader(feed, { kinds: ['queue'] })
  const told = (text: string) => [...text.matchAll(/^data: (.*)$/gm)].map(([, data = '']) => JSON.parse(data))
  await until(() => told(both.text()).length === 2 && told(one.text()).length === 1, { what: 'the first figures' })
  state.queues = new Map([['a', figures(1)]])
  const advance = async () => {
    clock.advance(1_000)
    await new Promise((resolve) => setImmediate(resolve))
    return told(both.text()).length === 3
  }
  await until(advance, { what: 'the queue that has nothing left' })
  expect(told(both.text())[2]).toEqual({ queue: 'b', depth: null, oldestWaitingMs: null })
  expect(told(one.text())).toHaveLength(1)
  await feed.stop()
})

test('a file on its way is told whenever it has moved, at its end for the last time, to whom its source matters', async () => {
  const { clock, feed, state } = feedUnderTest()
  state.files = [file('bank'), file('shop')]
  const bank = await reader(feed, { kinds: ['file'], source: 'bank', queue: 'any' })
  const told = () => [...bank.text().matchAll(/^event: file\ndata: (.*)$/gm)].map(([, data = '']) => JSON.parse(data))
  await until(() => told().length === 1, { what: 'the file as it is' })
  expect(told()[0]).toMatchObject({
    ...{ id: 'bank', source: 'bank', path: '/a.csv', status: 'importing' },
    progress: { bytesRead: 100, recordsRead: 10, bytesPerSecond: 100, recordsPerSecond: 10, remaining: '9s' },
    tasks: { total: 10, succeeded: 0, dead: 0, live: 10 },
  })
  async function second(...files: ReadFile[]) {
    state.files = files
    clock.advance(1_000)
    for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve))
  }
  await second(file('bank', { attemptMs: 2_000 }), file('shop', { bytesRead: 500 }))
  expect(told()).toHaveLength(1)
  await second(file('bank', { attemptMs: 3_000, bytesRead: 900, attemptBytes: 900 }))
  expect(told()).toHaveLength(2)
  expect(told()[1].progress).toMatchObject({ bytesRead: 900, bytesPerSecond: 300, remaining: '333ms' })
  const finishedAt = '2026-01-01T00:00:05.000Z'
  await second(file('bank', { status: 'done', finishedAt }))
  expect(state.asked).toEqual(['bank'])
  expect(told()[2]).toMatchObject({ status: 'done', finishedAt })
  await second(file('bank', { status: 'done', finishedAt }))
  await second()
  expect(state.asked).toEqual([])
  expect(told()).toHaveLength(3)
  await feed.stop()
})

test('a filter for a queue keeps no node away', async () => {
  const { clock, feed, state } = feedUnderTest()
  const client = await reader(feed, { kinds: ['node'], queue: 'a' })
  const node = { id: 'n', name: 'n', version: '1', roles: [], startedAt: '2026-01-01T00:00:00.000Z', status: 'alive' }
  state.nodes = [node as unknown as NodeView]
  const isTold = async () => {
    clock.advance(1_000)
    await new Promise((resolve) => setImmediate(resolve))
    return client.text().includes('event: node')
  }
  await until(isTold, { what: 'the node' })
  await feed.stop()
})
