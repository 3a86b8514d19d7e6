import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'
import fc from 'fast-check'
import { type CronTimes, localTime, parseCron } from '../../src/runtime/cron.ts'

function cron(expression: string, timezone = 'UTC'): CronTimes {
  const parsed = parseCron(expression, timezone)
  if (!parsed.ok) throw new Error(`${parsed.field} ${parsed.reason}`)
  return parsed.cron
}

/** The next fires after `from`, as the clocks of the zone show them. */
function fires(expression: string, timezone: string, from: string, count: number): string[] {
  const times = cron(expression, timezone)
  const found: string[] = []
  let at = Date.parse(from)
  for (let i = 0; i < count; i++) {
    at = times.next(at) as number
    found.push(localTime(at, timezone))
  }
  return found
}

describe('what is refused, and why', () => {
  test.each([
    ['', 'exactly five'],
    ['* * *', 'exactly five'],
    ['* * * * * * *', '7 parts'],
    ['61 * * * *', 'minute'],
    ['* 24 * * *', 'hour'],
    ['*/0 * * * *', 'step'],
    ['every day', 'exactly five'],
    ['@reboot', '@reboot'],
    ['@sometimes', 'exactly five'],
    ['0 0 30 2 *', 'never fires'],
    ['2030-01-01T00:00:00Z', 'not a time'],
    ['* * * * *\0', ''],
    ['💥 * * * *', ''],
  ])('cron %j', (expression, reason) => {
    const parsed = parseCron(expression, 'UTC')
    expect(parsed).toMatchObject({ ok: false, field: 'cron' })
    expect(parsed.ok ? '' : parsed.reason).toContain(reason)
  })

  test.each(['Europe/Berlim', '', 'Mars/Olympus', 'localtime', 'CEST'])('zone %j', (timezone) => {
    const parsed = parseCron('* * * * *', timezone)
    expect(parsed).toMatchObject({ ok: false, field: 'timezone' })
    expect(parsed.ok ? '' : parsed.reason).toContain('IANA')
  })
})

test('takes five fields, six with seconds, names, ranges, steps, L, W, #, and nicknames', () => {
  const from = '2026-01-01T00:00:00Z'
  const first = (expression: string) => fires(expression, 'UTC', from, 1)[0]
  expect(first('* * * * *')).toBe('2026-01-01T00:01:00+00:00')
  expect(first('*/5 * * * * *')).toBe('2026-01-01T00:00:05+00:00')
  expect(first('0 9 * * MON-FRI')).toBe('2026-01-01T09:00:00+00:00')
  expect(first('0 0 L * *')).toBe('2026-01-31T00:00:00+00:00')
  expect(first('0 0 15W 8 *')).toBe('2026-08-14T00:00:00+00:00')
  expect(first('0 0 * * FRI#2')).toBe('2026-01-09T00:00:00+00:00')
  expect(first('@weekly')).toBe('2026-01-04T00:00:00+00:00')
  expect(first('0 0 29 2 *')).toBe('2028-02-29T00:00:00+00:00')
  expect(first('0 0 13 * FRI')).toBe('2026-01-02T00:00:00+00:00')
  expect(first('0 0 13 * +FRI')).toBe('2026-02-13T00:00:00+00:00')
})

describe('the clocks go forward', () => {
  test('a time of day that does not exist fires at the end of the gap, in Berlin', () => {
    expect(fires('30 2 * * *', 'Europe/Berlin', '2026-03-28T00:00:00Z', 3)).toEqual([
      '2026-03-28T02:30:00+01:00',
      '2026-03-29T03:00:00+02:00',
      '2026-03-30T02:30:00+02:00',
    ])
  })

  test('so does one of several times of day, and two in the gap fire once, in New York', () => {
    expect(fires('0,30 2,14 * * *', 'America/New_York', '2026-03-08T00:00:00-05:00', 4)).toEqual([
      '2026-03-08T03:00:00-04:00',
      '2026-03-08T14:00:00-04:00',
      '2026-03-08T14:30:00-04:00',
      '2026-03-09T02:00:00-04:00',
    ])
  })

  test('steps go on in real time', () => {
    expect(fires('*/30 * * * *', 'Europe/Berlin', '2026-03-29T00:15:00Z', 3)).toEqual([
      '2026-03-29T01:30:00+01:00',
      '2026-03-29T03:00:00+02:00',
      '2026-03-29T03:30:00+02:00',
    ])
  })

  test('a midnight that does not exist does not lose its day, in Havana', () => {
    expect(fires('0 0 * * *', 'America/Havana', '2026-03-07T12:00:00-05:00', 2)).toEqual([
      '2026-03-08T01:00:00-04:00',
      '2026-03-09T00:00:00-04:00',
    ])
  })
})

describe('the clocks go back', () => {
  test('a time of day that comes twice fires once, at its first coming, in Berlin', () => {
    expect(fires('30 2 * * *', 'Europe/Berlin', '2026-10-24T12:00:00Z', 2)).toEqual([
      '2026-10-25T02:30:00+02:00',
      '2026-10-26T02:30:00+01:00',
    ])
  })

  test('so do several times of day, in New York', () => {
    expect(fires('30 1,13 * * *', 'America/New_York', '2026-10-31T20:00:00-04:00', 3)).toEqual([
      '2026-11-01T01:30:00-04:00',
      '2026-11-01T13:30:00-05:00',
      '2026-11-02T01:30:00-05:00',
    ])
  })

  test('steps go on in real time, through both comings', () => {
    expect(fires('*/30 * * * *', 'America/New_York', '2026-11-01T00:45:00-04:00', 5)).toEqual([
      '2026-11-01T01:00:00-04:00',
      '2026-11-01T01:30:00-04:00',
      '2026-11-01T01:00:00-05:00',
      '2026-11-01T01:30:00-05:00',
      '2026-11-01T02:00:00-05:00',
    ])
  })

  test('half an hour is enough for both rules, on Lord Howe', () => {
    expect(fires('45 1 * * *', 'Australia/Lord_Howe', '2026-04-04T00:00:00Z', 2)).toEqual([
      '2026-04-05T01:45:00+11:00',
      '2026-04-06T01:45:00+10:30',
    ])
  })
})

test('forward and backward name the same fires, across every change of the clocks', () => {
  const field = (max: number, min = 0) =>
    fc.oneof(
      fc.constant('*'),
      fc.integer({ min: 1, max: 30 }).map((step) => `*/${Math.min(step, max)}`),
      fc.uniqueArray(fc.integer({ min, max }), { minLength: 1, maxLength: 3 }).map((values) => values.join(',')),
    )
  const zones = fc.constantFrom('UTC', 'Europe/Berlin', 'America/New_York', 'Australia/Lord_Howe', 'Africa/Cairo')
  const changes = fc.constantFrom('2026-03-08', '2026-03-29', '2026-04-05', '2026-04-24', '2026-10-04', '2026-10-25')
  fc.assert(
    fc.property(zones, changes, field(59), field(23), field(28, 1), (zone, change, minute, hour, day) => {
      const times = cron(`${minute} ${hour} ${day} * *`, zone)
      const forward: number[] = []
      let at = Date.parse(`${change}T00:00:00Z`) - 20 * 3_600_000
      for (let i = 0; i < 40; i++) {
        const next = times.next(at) as number
        expect(next).toBeGreaterThan(at)
        forward.push(next)
        at = next
      }
      const backward: number[] = []
      for (let i = 0, before = at + 1; i < 40; i++) {
        before = times.previous(before) as number
        backward.unshift(before)
      }
      expect(backward).toEqual(forward)
    }),
    { numRuns: 200 },
  )
})

test("the process's own time zone changes nothing", async () => {
  const file = join(import.meta.dir, '../../src/runtime/cron.ts')
  const script = `import { parseCron } from ${JSON.stringify(file)}
    const out = []
    for (const zone of ['UTC', 'Europe/Berlin']) {
      let at = Date.parse('2026-03-28T20:00:00Z')
      const { cron } = parseCron('30 2 * * *', zone)
      for (let i = 0; i < 3; i++) out.push(new Date((at = cron.next(at))).toISOString())
      out.push(new Date(cron.previous(at)).toISOString())
    }
    console.log(out.join(' '))`
  const run = async (TZ: string) => {
    const child = Bun.spawn([process.execPath, '-e', script], { env: { ...process.env, TZ }, stderr: 'inherit' })
    return [await new Response(child.stdout).text(), await child.exited]
  }
  const [text, code] = await run('UTC')
  expect(code).toBe(0)
  expect(text).toContain('2026-03-29T01:00:00.000Z')
  for (const zone of ['America/New_York', 'Australia/Lord_Howe']) expect(await run(zone)).toEqual([text, 0] as never)
})
