import { afterEach, expect, test } from 'bun:test'
import { createHeart, type Heart, type HeartDeps } from '../../src/execution/heart.ts'
import type { Beat, BeatAnswer, Settlement } from '../../src/task/ledger.ts'
import { attemptOf } from '../../src/task/task.ts'
import { CountedClock, claimedTask, silent, turns } from '../support/services.ts'

let running: Heart[] = []
afterEach(async () => {
  for (const heart of running) await heart.stop()
  running = []
})

const alive: BeatAnswer = { alive: true, cancel: [], unnamed: [], others: 0 }

async function beating(changes: Partial<HeartDeps> = {}) {
  const clock = new CountedClock()
  const beats: Beat[] = []
  const told: string[] = []
  const givenBack: Settlement[] = []
  const hands: { id: string; started: boolean }[] = []
  let ids = 0
  let answer: () => BeatAnswer | Promise<BeatAnswer> = () => alive
  const heart = createHeart({
    ledger: {
      async beat(beat) {
        beats.push(beat)
        return answer()
      },
    },
    clock,
    log: silent,
    newId: () => `node-${++ids}`,
    join: async (id) => void told.push(`join ${id}`),
    leave: async (id) => void told.push(`leave ${id}`),
    hands: () => hands,
    state: () => ({ broker: 'in-process', consumers: [] }),
    cancel: (tasks) => void told.push(`cancel ${tasks.join()}`),
    onDead: async () => void told.push('dead'),
    onRevived: async () => void told.push('revived'),
    onOthers: (count) => void told.push(`others ${count}`),
    giveBack: async (settlements) => void givenBack.push(...settlements),
    ...changes,
  })
  running.push(heart)
  await heart.start()
  await turns()
  const advance = async (ms: number) => {
    clock.advance(ms)
    await turns()
  }
  const answers = (next: typeof answer) => {
    answer = next
  }
  return { clock, heart, beats, told, givenBack, hands, answers, advance }
}

const gone = () => Promise.reject(new Error('connect ECONNREFUSED'))

test('a node joins, beats every five seconds with what it holds and has started, and leaves', async () => {
  const { clock, heart, beats, told, hands, advance } = await beating()
  expect(told).toEqual(['join node-1', 'others 0'])
  hands.push({ id: 'a', started: true }, { id: 'b', started: false })
  await advance(4_999)
  expect(beats).toHaveLength(1)
  await advance(1)
  expect(beats[1]).toMatchObject({ node: 'node-1', held: ['a', 'b'], started: ['a'] })
  await heart.stop()
  expect(told.at(-1)).toBe('leave node-1')
  expect(clock.timers).toBe(0)
  await advance(60_000)
  expect(beats).toHaveLength(2)
})

test('a row that was not named in two beats running is given back, one that is known by then is not', async () => {
  const { givenBack, hands, answers, advance } = await beating()
  const stray = attemptOf(claimedTask())
  const arriving = attemptOf(claimedTask())
  answers(() => ({ ...alive, unnamed: [stray, arriving] }))
  await advance(5_000)
  expect(givenBack).toEqual([])
  hands.push({ id: arriving.id, started: false })
  await advance(5_000)
  expect(givenBack).toEqual([{ ...stray, outcome: { kind: 'returned' } }])
})

test('a row that its claim may start still is not given back, however soon one beat follows another', async () => {
  const { heart, givenBack, answers, advance } = await beating()
  const stray = attemptOf(claimedTask())
  answers(() => ({ ...alive, unnamed: [stray] }))
  for (let beat = 0; beat < 5; beat++) {
    heart.beatSoon()
    await advance(799)
  }
  expect(givenBack).toEqual([])
  await advance(5_000)
  expect(givenBack).toHaveLength(1)
})

test('a row that was unnamed once, then as another attempt, is not given back', async () => {
  const { givenBack, answers, advance } = await beating()
  const stray = attemptOf(claimedTask())
  let attempt = 1
  answers(() => ({ ...alive, unnamed: [{ ...stray, attempt: attempt++ }] }))
  await advance(5_000)
  await advance(5_000)
  await advance(5_000)
  expect(givenBack).toEqual([])
})

test('requests to cancel reach the workers', async () => {
  const { told, answers, advance } = await beating()
  answers(() => ({ ...alive, cancel: ['a', 'b'] }))
  await advance(5_000)
  expect(told).toContain('cancel a,b')
})

test('a node whose last beat is ten seconds old starts nothing, and may again after the next one', async () => {
  const { heart, answers, advance } = await beating()
  expect(heart.mayStart()).toBe(true)
  answers(gone)
  await advance(5_000)
  await advance(4_999)
  expect(heart.mayStart()).toBe(true)
  await advance(1)
  expect(heart.mayStart()).toBe(false)
  answers(() => alive)
  await advance(500)
  expect(heart.mayStart()).toBe(true)
})

test('beats that fail are repeated twice a second and no faster', async () => {
  const { beats, answers, advance } = await beating()
  answers(gone)
  const before = beats.length
  await advance(5_000)
  for (let at = 0; at < 10_000; at += 50) await advance(50)
  expect(beats.length - before).toBe(21)
})

test('steadyMs grows with beats, starts anew after a gap, and is nothing while a beat is overdue', async () => {
  const { heart, answers, advance } = await beating()
  for (let beat = 0; beat < 4; beat++) await advance(5_000)
  expect(heart.steadyMs()).toBe(20_000)
  answers(gone)
  await advance(5_000)
  for (let at = 0; at < 6_000; at += 500) await advance(500)
  expect(heart.steadyMs()).toBe(0)
  answers(() => alive)
  await advance(500)
  expect(heart.mayStart()).toBe(true)
  expect(heart.steadyMs()).toBe(0)
  await advance(5_000)
  expect(heart.steadyMs()).toBe(5_000)
})

test('an answer that took long counts from when the beat was sent', async () => {
  const { heart, answers, advance } = await beating()
  const late = Promise.withResolvers<BeatAnswer>()
  answers(() => late.promise)
  await advance(5_000)
  await advance(11_000)
  expect(heart.mayStart()).toBe(false)
  late.resolve(alive)
  await turns()
  expect(heart.mayStart()).toBe(false)
  expect(heart.steadyMs()).toBe(0)
})

test('a node that was declared dead drops its work before it comes back under a new id', async () => {
  const dropped = Promise.withResolvers<void>()
  const told: string[] = []
  const { heart, answers, advance, beats } = await beating({
    join: async (id) => void told.push(`join ${id}`),
    async onDead() {
      told.push('dead')
      await dropped.promise
      told.push('dropped')
    },
    onRevived: async () => void told.push('revived'),
  })
  answers(() => ({ ...alive, alive: false }))
  await advance(5_000)
  expect(told).toEqual(['join node-1', 'dead'])
  expect(heart.mayStart()).toBe(false)
  answers(() => alive)
  dropped.resolve()
  await turns()
  expect(told).toEqual(['join node-1', 'dead', 'dropped', 'join node-2', 'revived'])
  expect(heart.node()).toBe('node-2')
  expect(heart.mayStart()).toBe(true)
  expect(heart.steadyMs()).toBe(0)
  await advance(5_000)
  expect(beats.at(-1)?.node).toBe('node-2')
})

test('a dead node that cannot join tries again until it can, and then is revived', async () => {
  let away = false
  const told: string[] = []
  const joined = new Set<string>()
  const { heart, answers, advance, beats } = await beating({
    async join(id) {
      if (away) throw new Error('connect ECONNREFUSED')
      joined.add(id)
    },
    onRevived: async () => void told.push('revived'),
  })
  answers(() => ({ ...alive, alive: joined.has(beats.at(-1)?.node ?? '') && beats.at(-1)?.node !== 'node-1' }))
  away = true
  await advance(5_000)
  for (let at = 0; at < 3; at++) await advance(500)
  expect(heart.mayStart()).toBe(false)
  away = false
  await advance(500)
  expect(told).toEqual(['revived'])
  expect(heart.mayStart()).toBe(true)
  expect(joined.has(heart.node())).toBe(true)
})

test('PROTOCOL 5: a dead node that joined and did not hear so joins again, and begins anew once', async () => {
  const told: string[] = []
  let beats = 0
  const { heart, answers, advance } = await beating({
    async join(id) {
      told.push(`join ${id}`)
      if (id === 'node-2') throw new Error('the connection died before the answer')
    },
    onDead: async () => void told.push('dead'),
    onRevived: async () => void told.push('revived'),
  })
  answers(() => ({ ...alive, alive: beats++ > 0 }))
  await advance(5_000)
  expect(heart.mayStart()).toBe(false)
  await advance(500)
  await advance(5_000)
  expect(told).toEqual(['join node-1', 'dead', 'join node-2', 'join node-3', 'revived'])
  expect(heart.mayStart()).toBe(true)
})
