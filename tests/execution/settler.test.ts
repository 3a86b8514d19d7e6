import { expect, test } from 'bun:test'
import { createSettler, type SettlerDeps } from '../../src/execution/settler.ts'
import type { Settled, Settlement } from '../../src/task/ledger.ts'
import { attemptOf } from '../../src/task/task.ts'
import { CountedClock, claimedTask, silent, turns } from '../support/services.ts'

const success = (): Settlement => ({ ...attemptOf(claimedTask()), outcome: { kind: 'succeeded' } })
const isBadRow = (error: unknown) => error instanceof RangeError

function settling(changes: Partial<SettlerDeps> = {}) {
  const clock = new CountedClock()
  const calls: { node: string; settlements: Settlement[] }[] = []
  const told: { id: string; late: boolean }[] = []
  const ledger = {
    async settle(node: string, settlements: Settlement[]): Promise<Settled[]> {
      calls.push({ node, settlements })
      return settlements.map(({ id }) => ({ id, late: false, status: 'succeeded', delayMs: 0 }))
    },
  }
  const settler = createSettler({
    ledger,
    clock,
    log: silent,
    node: () => 'node-1',
    isBadRow,
    onSettled: (settlement, { late }) => void told.push({ id: settlement.id, late }),
    ...changes,
  })
  return { clock, calls, told, ledger, settler }
}

test('outcomes of one turn and those that come during a commit are settled together', async () => {
  const { calls, settler, ledger } = settling()
  const first = Promise.withResolvers<void>()
  const settle = ledger.settle
  ledger.settle = async (node, settlements) => {
    const answer = await settle(node, settlements)
    if (calls.length === 1) await first.promise
    return answer
  }
  const early = [success(), success()].map((one) => settler.settle(one))
  await turns()
  const late = Array.from({ length: 700 }, () => settler.settle(success()))
  first.resolve()
  await Promise.all([...early, ...late])
  expect(calls.map(({ settlements }) => settlements.length)).toEqual([2, 500, 200])
  await settler.idle()
})

test('outcomes wait for a database that is away, are asked for four times a second, and are settled once when it is back', async () => {
  const { clock, calls, told, settler, ledger } = settling()
  const settle = ledger.settle
  let tries = 0
  let away = true
  ledger.settle = async (node, settlements) => {
    tries++
    if (away) throw new Error('connect ECONNREFUSED')
    return settle(node, settlements)
  }
  const outcomes = Array.from({ length: 20 }, success)
  const ends = outcomes.map((one) => settler.settle(one))
  for (let ms = 0; ms < 20_000; ms += 250) {
    await turns(3)
    clock.advance(250)
  }
  expect(tries).toBe(80)
  expect(told).toEqual([])
  away = false
  await turns()
  clock.advance(250)
  await Promise.all(ends)
  expect(calls).toHaveLength(1)
  expect(told.map(({ id }) => id)).toEqual(outcomes.map(({ id }) => id))
})

test('one outcome that the ledger cannot hold fails its own task with a sentence, and no other', async () => {
  const { told, settler, ledger } = settling()
  const settle = ledger.settle
  const stored: Settlement[] = []
  const bad = success()
  ledger.settle = async (node, settlements) => {
    if (settlements.some((one) => one.id === bad.id && one.outcome.kind === 'succeeded'))
      throw new RangeError('bad json')
    stored.push(...settlements)
    return settle(node, settlements)
  }
  const outcomes = [success(), success(), bad, success(), success()]
  await Promise.all(outcomes.map((one) => settler.settle(one)))
  expect(stored.map(({ id }) => id).sort()).toEqual(outcomes.map(({ id }) => id).sort())
  expect(stored.find(({ id }) => id === bad.id)?.outcome).toEqual({
    kind: 'failed',
    retryable: false,
    error: 'The outcome cannot be stored: bad json',
  })
  expect(stored.filter(({ outcome }) => outcome.kind === 'succeeded')).toHaveLength(4)
  expect(told.every(({ late }) => !late)).toBe(true)
})

test('an outcome whose refusal is refused as well resolves as late, so that its delivery ends', async () => {
  const { settler, ledger } = settling()
  ledger.settle = async () => {
    throw new RangeError('bad row')
  }
  const outcome = success()
  expect(await settler.settle(outcome)).toEqual({ id: outcome.id, late: true })
})

test('late outcomes are told as late', async () => {
  const { told, settler, ledger } = settling()
  ledger.settle = async (_, settlements) => settlements.map(({ id }) => ({ id, late: true }))
  const outcome = success()
  expect(await settler.settle(outcome)).toEqual({ id: outcome.id, late: true })
  expect(told).toEqual([{ id: outcome.id, late: true }])
})

test('two attempts of one task in a batch are answered each for itself', async () => {
  const { settler, ledger } = settling()
  ledger.settle = async (_, settlements) =>
    settlements.map(({ id, attempt }) =>
      attempt === 1 ? { id, late: true } : { id, late: false, status: 'succeeded', delayMs: 0 },
    )
  const first = success()
  const [one, two] = await Promise.all([settler.settle(first), settler.settle({ ...first, attempt: 2 })])
  expect(one.late).toBe(true)
  expect(two.late).toBe(false)
})

test('outcomes are settled under the id that the node had when they came', async () => {
  let node = 'node-1'
  const { calls, settler } = settling({ node: () => node })
  const before = settler.settle(success())
  node = 'node-2'
  await Promise.all([before, settler.settle(success())])
  expect(calls.map((call) => call.node).sort()).toEqual(['node-1', 'node-2'])
})

test('a closed settler gives up what the ledger does not take, and everything resolves', async () => {
  const { clock, settler, ledger } = settling()
  let tries = 0
  ledger.settle = async () => {
    tries++
    throw new Error('connect ECONNREFUSED')
  }
  const ends = [success(), success()].map((one) => settler.settle(one))
  await turns()
  settler.close()
  expect((await Promise.all(ends)).map((one) => one.late)).toEqual([true, true])
  await settler.idle()
  expect(clock.timers).toBe(0)
  clock.advance(60_000)
  await turns()
  expect(tries).toBe(1)
})
