import { expect, test } from 'bun:test'
import { type AnswersDeps, createAnswers } from '../../src/execution/answers.ts'
import type { Hold, Question } from '../../src/task/attempt/question.ts'
import { CountedClock, silent, turns } from '../support/services.ts'

/** Answers over a ledger of names that is away when the test says so. */
function answering(over: Partial<AnswersDeps> = {}) {
  const clock = new CountedClock()
  const names = new Map<string, string>()
  const state = { node: 'node 1', away: false, mayStart: true }
  const ledger = {
    async hold(node: string, name: string) {
      if (state.away) throw new Error('the ledger is away')
      if ((names.get(name) ?? node) !== node) return false
      names.set(name, node)
      return true
    },
    async release(node: string, name: string) {
      if (state.away) throw new Error('the ledger is away')
      if (names.get(name) === node) names.delete(name)
    },
  }
  const answers = createAnswers({
    ledger,
    clock,
    log: silent,
    node: () => state.node,
    mayStart: () => state.mayStart,
    publish: async () => 'confirmed',
    ...over,
  })
  const ask = (holder: number, question: Question) => answers.answer(holder, null, question)
  const hold = async (holder: number, name = 'a') => (await ask(holder, { kind: 'hold', name })) as Hold
  const token = async (holder: number, name = 'a') => {
    const held = await hold(holder, name)
    return held.held ? held.token : undefined
  }
  const release = (holder: number, name = 'a') => ask(holder, { kind: 'release', name })
  return { answers, clock, names, state, hold, token, release }
}

test('a name keeps its token while nobody else can have had it', async () => {
  const { token, release } = answering()
  const first = await token(1)
  expect(first).toBeString()
  expect(await token(1)).toBe(first)
  await release(1)
  const second = await token(1)
  expect(second).not.toBe(first)
  expect(await token(1)).toBe(second)
})

test('a name that another thread asks for goes over to it, and comes back under a new token', async () => {
  const { token, release, names } = answering()
  const first = await token(1)
  const second = await token(2)
  expect(second).not.toBe(first)
  // The former holder cannot let it go any more.
  await release(1)
  expect(names.get('a')).toBe('node 1')
  expect(await token(2)).toBe(second)
  const third = await token(1)
  expect([first, second]).not.toContain(third)
})

test('a name that another node has is refused, and after that its token is new', async () => {
  const { token, hold, names } = answering()
  const first = await token(1)
  names.set('a', 'node 2')
  expect(await hold(1)).toEqual({ held: false })
  names.delete('a')
  expect(await token(1)).not.toBe(first)
})

test('a node that comes back under a new id has new tokens', async () => {
  const { token, state, names } = answering()
  const first = await token(1)
  state.node = 'node 1 again'
  names.delete('a')
  expect(await token(1)).not.toBe(first)
})

test('a node that has not beaten for long holds nothing anew', async () => {
  const { hold, state } = answering()
  state.mayStart = false
  await expect(hold(1)).rejects.toThrow('has not beaten')
})

test('what a thread held is let go when it ends, also what it was just being given', async () => {
  const { answers, hold, names } = answering()
  await hold(1, 'a')
  await hold(2, 'b')
  const late = hold(1, 'c')
  answers.gone(1)
  await late
  await turns()
  expect([...names.keys()]).toEqual(['b'])
})

test('a name that could not be let go is let go later, unless it is held again', async () => {
  const { answers, clock, hold, release, names, state } = answering()
  await hold(1, 'a')
  await hold(1, 'b')
  state.away = true
  await release(1, 'a')
  await release(1, 'b')
  state.away = false
  await hold(1, 'b')
  clock.advance(1_000)
  await turns()
  expect([...names.keys()]).toEqual(['b'])

  state.away = true
  await release(1, 'b')
  clock.advance(1_000)
  await turns()
  answers.close()
  expect(clock.timers).toBe(0)
})

test('a name that may have been taken by a call that failed is let go', async () => {
  const { clock, hold, names, state } = answering()
  state.away = true
  await expect(hold(1)).rejects.toThrow('the ledger is away')
  names.set('a', 'node 1')
  state.away = false
  clock.advance(1_000)
  await turns()
  expect(names.size).toBe(0)
})

test('a release goes before the hold that comes after it, however slow it is', async () => {
  const slow = Promise.withResolvers<void>()
  const calls: string[] = []
  const { answers } = answering({
    ledger: {
      async hold() {
        calls.push('hold')
        return true
      },
      async release() {
        await slow.promise
        calls.push('release')
      },
    },
  })
  await answers.answer(1, null, { kind: 'hold', name: 'a' })
  answers.gone(1)
  const next = answers.answer(2, null, { kind: 'hold', name: 'a' })
  await turns()
  slow.resolve()
  await next
  expect(calls).toEqual(['hold', 'release', 'hold'])
})

test('a message that no queue took is unroutable, and one that may have arrived is unknown', async () => {
  const ends = ['confirmed', 'returned', 'refused', 'unknown'] as const
  for (const end of ends) {
    const { answers } = answering({ publish: async () => end })
    const question = { kind: 'publish', exchange: '', routingKey: 'mails', body: '{}' } as const
    const answer = await answers.answer(1, { id: 'a', attempt: 1 }, question)
    expect(answer).toBe(end === 'returned' ? 'unroutable' : end)
  }
})

test('an import is written down for the attempt that asks, where there is somebody who does', async () => {
  const question = { kind: 'import-fail', file: 'f', error: 'no' } as const
  const written: unknown[] = []
  const never = async () => expect.unreachable()
  const imports = { open: never, commit: never, fail: async (...given: unknown[]) => void written.push(given) }
  const { answers } = answering({ imports })
  expect(await answers.answer(1, { id: 'a', attempt: 2 }, question)).toBeNull()
  expect(written).toEqual([[{ id: 'a', attempt: 2 }, 'f', 'no']])
  await expect(answers.answer(1, null, question)).rejects.toThrow('Only an attempt')
  await expect(answering().answers.answer(1, { id: 'a', attempt: 2 }, question)).rejects.toThrow('that has the ledger')
})
