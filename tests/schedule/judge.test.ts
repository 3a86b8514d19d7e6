import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { parseCron } from '../../src/runtime/cron.ts'
import { dueTime, judge, MAX_MADE_UP, nextFire, type Rule } from '../../src/schedule/judge.ts'
import { MISSED } from '../../src/task/schedule.ts'

function rule(cron: string, fields: Partial<Rule> & { timezone?: string } = {}): Rule {
  const parsed = parseCron(cron, fields.timezone ?? 'UTC')
  if (!parsed.ok) throw new Error(parsed.reason)
  return { name: 'r', cron: parsed.cron, jitterMs: 0, missed: 'last', ...fields }
}

const at = (text: string) => Date.parse(`2026-06-01T${text}Z`)
const texts = (fires: number[]) => fires.map((fire) => new Date(fire).toISOString().slice(11, 19))

describe('missed', () => {
  const judged = (missed: Rule['missed'], now: string, cron = '*/10 * * * *') => {
    const { fires, dropped } = judge(rule(cron, { missed }), at('00:00:00'), at(now))
    return [texts(fires), dropped ? texts([dropped.first, dropped.last]) : []]
  }

  test('skip passes over what is more than a minute late, and keeps what is not', () => {
    expect(judged('skip', '00:35:00')).toEqual([[], ['00:10:00', '00:30:00']])
    expect(judged('skip', '00:30:59')).toEqual([['00:30:00'], ['00:10:00', '00:20:00']])
    expect(judged('skip', '00:10:59')).toEqual([['00:10:00'], []])
  })

  test('last makes up with one fire, which is the one on time if there is one', () => {
    expect(judged('last', '00:35:00')).toEqual([['00:30:00'], ['00:10:00', '00:20:00']])
    expect(judged('last', '00:30:59')).toEqual([['00:30:00'], ['00:10:00', '00:20:00']])
    expect(judged('last', '00:15:00')).toEqual([['00:10:00'], []])
  })

  test('all makes up for each', () => {
    expect(judged('all', '00:35:00')).toEqual([['00:10:00', '00:20:00', '00:30:00'], []])
  })

  test('all has a cap: the latest hundred, and what is on time', () => {
    const { fires, dropped } = judge(rule('* * * * * *', { missed: 'all' }), at('00:00:00'), at('12:00:00'))
    expect(fires).toHaveLength(MAX_MADE_UP + 60)
    expect(texts([fires[0] as number, fires.at(-1) as number])).toEqual(['11:57:21', '12:00:00'])
    expect(texts([dropped?.first as number, dropped?.last as number])).toEqual(['00:00:01', '11:57:20'])
  })

  test('ten years without a scheduler are judged in no time', () => {
    const started = performance.now()
    for (const missed of MISSED) {
      const { fires } = judge(rule('* * * * * *', { missed }), at('00:00:00') - 10 * 365 * 86_400_000, at('00:00:00'))
      expect(fires.at(-1)).toBe(at('00:00:00'))
    }
    expect(performance.now() - started).toBeLessThan(1_000)
  })

  test('a cursor ahead of the clock fires nothing', () => {
    for (const missed of MISSED) {
      expect(judge(rule('* * * * *', { missed }), at('00:10:00'), at('00:05:00'))).toEqual({
        fires: [],
        dropped: undefined,
      })
    }
  })
})

describe('jitter', () => {
  test('puts a fire off by the same share on every node, by other ones for other names and times', () => {
    const shares = (name: string) =>
      Array.from({ length: 50 }, (_, i) => {
        const fireAt = at('00:00:00') + i * 3_600_000
        return dueTime(rule('0 * * * *', { name, jitterMs: 600_000 }), fireAt) - fireAt
      })
    expect(shares('a')).toEqual(shares('a'))
    expect(shares('a')).not.toEqual(shares('b'))
    expect(new Set(shares('a')).size).toBeGreaterThan(40)
    for (const share of shares('a')) {
      expect(share).toBeGreaterThanOrEqual(0)
      expect(share).toBeLessThan(600_000)
    }
  })

  test('never puts a fire off past the next one', () => {
    const jittered = rule('*/5 * * * * *', { jitterMs: 86_400_000 })
    for (let fireAt = at('00:00:00'); fireAt < at('00:05:00'); fireAt += 5_000) {
      expect(dueTime(jittered, fireAt)).toBeLessThan(fireAt + 5_000)
    }
  })

  test('a fire that is put off is not due at its time', () => {
    const jittered = rule('0 * * * *', { jitterMs: 1_800_000 })
    const { fireAt, dueAt } = nextFire(jittered, at('00:30:00')) as { fireAt: number; dueAt: number }
    expect(dueAt).toBeGreaterThan(fireAt)
    expect(judge(jittered, at('00:30:00'), dueAt - 1).fires).toEqual([])
    expect(judge(jittered, at('00:30:00'), dueAt).fires).toEqual([fireAt])
  })
})

test('however often it is looked, each fire is judged once: made or dropped, in order, none twice and none forgotten', () => {
  const crons = fc.constantFrom('*/7 * * * * *', '* * * * *', '*/13 * * * *', '30 1,2 * * *', '0 */3 * * *')
  const zones = fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York')
  const looks = fc.array(fc.integer({ min: 1, max: 400_000 }), { minLength: 5, maxLength: 30 })
  const jitter = fc.constantFrom(0, 500, 60_000, 7_200_000)
  const missed = fc.constantFrom(...MISSED)
  fc.assert(
    fc.property(crons, zones, looks, jitter, missed, (cron, timezone, pauses, jitterMs, policy) => {
      const judged = rule(cron, { timezone, jitterMs, missed: policy })
      const start = Date.parse('2026-10-25T00:20:00Z')
      const seen: number[] = []
      let cursor = start
      let now = start
      for (const pause of pauses) {
        now += pause
        const { fires, dropped } = judge(judged, cursor, now)
        if (dropped) {
          for (let fire = dropped.first; fire <= dropped.last; fire = judged.cron.next(fire) as number) seen.push(fire)
        }
        for (const fire of fires) {
          expect(dueTime(judged, fire)).toBeLessThanOrEqual(now)
          seen.push(fire)
        }
        cursor = fires.at(-1) ?? dropped?.last ?? cursor
      }
      const all: number[] = []
      for (let fire = judged.cron.next(start) as number; fire <= cursor; fire = judged.cron.next(fire) as number)
        all.push(fire)
      expect(seen).toEqual(all)
      const next = nextFire(judged, cursor)
      expect(next?.dueAt).toBeGreaterThan(now)
    }),
    { numRuns: 100 },
  )
})
