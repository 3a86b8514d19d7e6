import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { databaseTime, inTransaction } from '../../src/store/database/statement.ts'
import {
  lastFires,
  listFires,
  listSchedules,
  lockDueSchedule,
  nextWake,
  recordFires,
  type ScheduleRule,
  scheduleByName,
  storeSchedule,
} from '../../src/store/schedules.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../support/database.ts'

const RULE: Omit<ScheduleRule, 'name'> = {
  cron: '* * * * *',
  timezone: 'UTC',
  task: '{"queue":"q","payload":{"b":1.0,"a":1}}',
  queue: 'q',
  overlap: 'allow',
  missed: 'last',
  jitter_ms: 0,
  paused: false,
}

describe.each([...ENGINES])('on %s Postgres', (engine) => {
  let database: TestDatabase
  beforeEach(async () => {
    database = await testDatabase(engine)
  })
  afterEach(() => database.drop())

  const pool = () => database.database.pool
  const store = (name: string, rule: Partial<ScheduleRule> = {}, wakeAt: number | undefined = 0) =>
    inTransaction(pool(), (tx) => storeSchedule(tx, { ...RULE, ...rule, name }, { cursor: 0, wakeAt }))

  test('a schedule is made, then replaced whole; its task stays the very text', async () => {
    expect((await store('s')).created).toBe(true)
    const { schedule, created } = await store('s', { cron: '0 * * * *', task: '{"payload" : 2.0}', paused: true })
    expect([created, schedule]).toMatchObject([
      false,
      { name: 's', cron: '0 * * * *', task: '{"payload" : 2.0}', paused: true, cursor: '1970-01-01T00:00:00.000Z' },
    ])
    expect(await scheduleByName(pool(), 's')).toEqual(schedule)
    expect(await scheduleByName(pool(), 'S')).toBeUndefined()
  })

  test('a due schedule is locked by one transaction, the next one by another, and nothing is left for a third', async () => {
    await store('first', {}, 1)
    await store('second', {}, 2)
    await store('paused', { paused: true })
    await store('later', {}, Date.now() + 86_400_000)
    await inTransaction(pool(), async (a) => {
      expect((await lockDueSchedule(a))?.name).toBe('first')
      await inTransaction(pool(), async (b) => {
        expect((await lockDueSchedule(b))?.name).toBe('second')
        await inTransaction(pool(), async (c) => expect(await lockDueSchedule(c)).toBeUndefined())
      })
    })
  })

  test('the next wake is told in milliseconds: 0 when overdue, none when nothing fires', async () => {
    expect(await nextWake(pool())).toBeUndefined()
    await store('paused', { paused: true })
    await store('never', {}, undefined)
    await pool().query(`update schedules set wake_at = 'infinity' where name = 'never'`)
    expect(await nextWake(pool())).toBeUndefined()
    await store('later', {}, (await databaseTime(pool())) + 60_000)
    expect(await nextWake(pool())).toBeGreaterThan(50_000)
    await store('due')
    expect(await nextWake(pool())).toBe(0)
  })

  test('schedules page by name, and a page of heavy tasks is short', async () => {
    for (const name of ['b', 'a', 'B', 'c:1']) await store(name)
    const first = await listSchedules(pool(), 2)
    expect([first.schedules.map(({ name }) => name), first.more]).toEqual([['B', 'a'], true])
    const rest = await listSchedules(pool(), 2, 'a')
    expect([rest.schedules.map(({ name }) => name), rest.more]).toEqual([['b', 'c:1'], false])
    const heavy = JSON.stringify({ payload: 'x'.repeat(5 * 1024 * 1024) })
    for (const name of ['h1', 'h2']) await store(name, { task: heavy })
    const page = await listSchedules(pool(), 10, 'c:1')
    expect([page.schedules.map(({ name }) => name), page.more]).toEqual([['h1'], true])
  })

  test('fires are listed from the latest, page by page, and go with their schedule', async () => {
    await store('s')
    await store('none')
    const fire = { outcome: 'submitted', manual: false, taskId: null, detail: null } as const
    const days = ['2026-01-01T00:00:00.000Z', '2026-01-02T00:00:00.000Z', '2026-01-03T00:00:00.000Z']
    await inTransaction(pool(), (tx) =>
      recordFires(
        tx,
        's',
        days.map((fireAt) => ({ ...fire, fireAt })),
      ),
    )
    const latest = await listFires(pool(), 's', 2)
    expect(latest.map(({ fireAt }) => fireAt)).toEqual([days[2], days[1]] as string[])
    expect(await listFires(pool(), 's', 2, latest[1]?.id)).toMatchObject([{ fireAt: days[0] as string }])
    expect(await lastFires(pool(), ['s', 'none'])).toEqual(new Map([['s', latest[0] as never]]))
    await pool().query('delete from schedules')
    expect(await listFires(pool(), 's', 9)).toEqual([])
  })
})
