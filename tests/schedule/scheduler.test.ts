import { afterEach, beforeEach, describe, expect, setSystemTime, test } from 'bun:test'
import { ManualClock } from '../../src/runtime/clock.ts'
import { ENGINES } from '../support/database.ts'
import { until } from '../support/until.ts'
import { type SchedulesUnderTest, schedulesUnderTest, TASK, WANTED } from './schedules-under-test.ts'

describe.each([...ENGINES])('on %s Postgres', (engine) => {
  let under: SchedulesUnderTest
  beforeEach(async () => {
    under = await schedulesUnderTest(engine)
  })
  afterEach(() => under.close())

  const outcomes = async (name: string) => (await under.fires(name)).map((fire) => fire.outcome)
  /** Since the turn of the year, so that no test depends on the minute it runs in: one fire is made, older ones are missed. */
  const YEARLY = '0 0 1 1 *'
  const judged = async (name: string) => (await outcomes(name)).filter((outcome) => outcome !== 'missed')
  const state = async (name: string) => {
    const { rows } = await under.pool.query(
      `select cursor, wake_at, paused, error, wake_at > now() as later from schedules where name = $1`,
      [name],
    )
    return rows[0]
  }

  test('a fire makes a task that carries the schedule and the time, with the payload as it was sent', async () => {
    await under.put('s', { cron: YEARLY })
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    const fire = (await under.fires('s')).at(-1)
    const [task] = await under.tasks()
    expect(fire).toMatchObject({ outcome: 'submitted', task_id: task?.id as string, detail: null })
    expect(task).toMatchObject({ queue: 'q', payload: '{"b":1.0,"a":12345678901234567890}', status: 'pending' })
    expect(task?.origin).toBe('schedule')
    const { rows } = await under.pool.query('select idempotency_key from tasks')
    expect(rows[0].idempotency_key).toBe(`schedule:s:${fire?.fire_at}`)
    const { rows: counted } = await under.pool.query(`select accepted from counters where origin = 'schedule'`)
    expect(counted).toEqual([{ accepted: 1 }])
    expect(under.woken).toEqual(['q'])
    expect(await state('s')).toMatchObject({ cursor: fire?.fire_at as string, later: true })
  })

  test("the task's delay is counted from its fire", async () => {
    await under.put('s', { cron: YEARLY, task: '{"queue":"q","payload":1,"delay":"10m","priority":7}' })
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    expect((await under.tasks())[0]?.due_in).toBeCloseTo(600, 3)
  })

  test('after an outage: skip makes nothing, last makes one, all makes each', async () => {
    for (const missed of ['skip', 'last', 'all'] as const) {
      await under.put(missed, { cron: '0 0 1 * *', missed })
      await under.unseenFor(missed, '100 days')
    }
    await under.fireAll()
    const made = async (name: string) => (await outcomes(name)).filter((outcome) => outcome === 'submitted').length
    expect(await made('skip')).toBe(0)
    expect(await made('last')).toBe(1)
    expect(await made('all')).toBeGreaterThanOrEqual(3)
    expect((await under.fires('skip'))[0]).toMatchObject({ outcome: 'missed', task_id: null })
    expect((await under.fires('skip'))[0]?.detail).toContain('nor at the others until')
    expect(await outcomes('all')).not.toContain('missed')
    for (const name of ['skip', 'last', 'all']) expect(await state(name)).toMatchObject({ later: true })
  })

  test('a restart of less than a minute loses nothing, whatever missed says', async () => {
    for (const missed of ['skip', 'last', 'all'] as const) {
      await under.put(missed, { cron: '*/5 * * * * *', missed })
      await under.unseenFor(missed, '50 seconds')
    }
    await under.fireAll()
    for (const missed of ['skip', 'last', 'all']) {
      const made = await outcomes(missed)
      expect(made.filter((outcome) => outcome === 'submitted').length).toBeGreaterThanOrEqual(9)
      expect(made).not.toContain('missed')
    }
  })

  test('overlap skip passes over fires while a task of the schedule is not final', async () => {
    await under.put('s', { overlap: 'skip', cron: YEARLY })
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    expect(await judged('s')).toEqual(['submitted'])
    for (const status of ['pending', 'queued', 'running', 'retrying']) {
      await under.pool.query('update tasks set status = $1, idempotency_key = null', [status])
      await under.unseenFor('s', '400 days')
      await under.fireAll()
      expect([status, await under.tasks()]).toMatchObject([status, { length: 1 }])
    }
    expect((await judged('s')).filter((outcome) => outcome === 'overlap')).toHaveLength(4)
    await under.finish((await under.tasks())[0]?.id as string)
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    expect(await under.tasks()).toHaveLength(2)
  })

  test('the same fire a second time gives the first task: its key is the second belt', async () => {
    await under.put('s', { cron: YEARLY })
    for (let i = 0; i < 2; i++) {
      await under.unseenFor('s', '400 days')
      await under.fireAll()
    }
    const [task] = await under.tasks()
    expect(await under.tasks()).toHaveLength(1)
    const made = (await under.fires('s')).filter((fire) => fire.outcome === 'submitted')
    expect(made.map((fire) => fire.task_id)).toEqual([task?.id, task?.id] as string[])
  })

  test('of several fires at once, overlap skip makes the first; allow makes all', async () => {
    for (const overlap of ['skip', 'allow'] as const) {
      await under.put(overlap, { overlap, cron: '*/5 * * * * *' })
      await under.unseenFor(overlap, '30 seconds')
    }
    await under.fireAll()
    expect((await outcomes('skip')).slice(0, 3)).toEqual(['submitted', 'overlap', 'overlap'])
    expect(new Set(await outcomes('allow'))).toEqual(new Set(['submitted']))
  })

  test('missed all with overlap skip queues its fires one after another', async () => {
    await under.put('s', { overlap: 'skip', missed: 'all', cron: '0 0 0 1 * *' })
    await under.pool.query(`update schedules set cursor = now() - interval '100 days', wake_at = now()`)
    const { rows } = await under.pool.query<{ months: number }>(
      `select count(*)::int as months from generate_series(date_trunc('month', now() - interval '100 days'), now(), '1 month') m
       where m > now() - interval '100 days'`,
    )
    const months = rows[0]?.months as number
    expect(months).toBeGreaterThanOrEqual(3)
    const { scheduler } = under.scheduler()
    await scheduler.start()
    for (let done = 1; done <= months; done++) {
      const live = await until(async () => (await under.tasks()).find((task) => task.status === 'pending'), {
        what: `task ${done} of ${months}`,
      })
      expect(await under.tasks()).toHaveLength(done)
      if (done === 1) {
        // While it is not final the next one waits, however often it is looked.
        const [periodic] = scheduler.periodic
        const runs = periodic?.state().runs as number
        await until(() => (periodic?.state().runs as number) >= runs + 2, { what: 'two more looks' })
        expect(await under.tasks()).toHaveLength(1)
      }
      await under.finish(live.id)
    }
    const seen = await under.fires('s')
    expect(seen.map((fire) => fire.outcome)).toEqual(Array(months).fill('submitted'))
    expect(seen.map((fire) => fire.fire_at)).toEqual([...new Set(seen.map((fire) => fire.fire_at))].sort())
    await until(async () => (await state('s')).later, { what: 'the schedule to wait for the next month' })
  })

  test('a paused schedule does not fire, and a resumed one does not make up for its pause', async () => {
    await under.put('s', { missed: 'all', cron: '*/5 * * * * *' })
    await under.schedules.setPaused('s', true)
    await under.unseenFor('s', '10 minutes')
    await under.fireAll()
    expect(await outcomes('s')).toEqual([])
    const { rows: before } = await under.pool.query(`select now()::text as at`)
    expect((await under.schedules.setPaused('s', false))?.paused).toBe(false)
    const { rows } = await under.pool.query(
      `select cursor >= date_trunc('second', $1::timestamptz) as fresh from schedules`,
      [before[0].at],
    )
    expect(rows).toEqual([{ fresh: true }])
    expect(await under.schedules.setPaused('none', true)).toBeUndefined()
  })

  test('run now makes a task of a paused schedule too, whatever overlap says, and moves nothing else', async () => {
    await under.put('s', { overlap: 'skip', cron: '0 0 1 1 *', paused: true })
    const before = await state('s')
    const first = await under.schedules.runNow('s')
    const second = await under.schedules.runNow('s')
    expect([first, second]).toMatchObject([
      { outcome: 'submitted', manual: true },
      { outcome: 'submitted', manual: true },
    ])
    expect((await under.tasks()).map((task) => task.id)).toEqual([first?.taskId, second?.taskId] as string[])
    expect(await state('s')).toEqual(before)
    expect(await under.schedules.runNow('none')).toBeUndefined()
    await under.pool.query(`delete from queues`)
    await expect(under.schedules.runNow('s')).rejects.toMatchObject({ code: 'unknown-queue' })
  })

  test('replacing the cron while a fire is due makes that fire by the old rule', async () => {
    await under.put('s', { cron: YEARLY })
    await under.unseenFor('s', '400 days')
    await under.put('s', { cron: '0 0 2 1 *', task: '{"queue":"q","payload":"new"}' })
    expect((await under.tasks()).map((task) => task.payload)).toEqual(['{"b":1.0,"a":12345678901234567890}'])
    expect(await judged('s')).toEqual(['submitted'])
    expect(under.woken).toEqual(['q'])
    await under.fireAll()
    expect(await under.tasks()).toHaveLength(1)
  })

  test('the same cron again leaves no gap and doubles nothing; another one counts from now on', async () => {
    await under.put('s', { cron: YEARLY })
    await under.pool.query(`update schedules set cursor = now() - interval '10 s', wake_at = now() + interval '1 h'`)
    const before = await state('s')
    await under.put('s', { cron: YEARLY, jitter_ms: 1_000 })
    expect((await state('s')).cursor).toBe(before.cursor)
    await under.put('s', { cron: '0 0 2 1 *' })
    expect(Date.parse((await state('s')).cursor)).toBeGreaterThan(Date.parse(before.cursor))
  })

  test('a schedule whose queue is gone says so, loses no fire, harms no other, and fires when the queue is back', async () => {
    await under.put('s', { cron: YEARLY })
    await under.put('good')
    await under.pool.query(
      `update schedules set queue = 'gone', task = '{"queue":"gone","payload":1}' where name = 's'`,
    )
    await under.unseenFor('s', '400 days')
    await under.unseenFor('good', '3 seconds')
    await under.fireAll()
    expect(await state('s')).toMatchObject({ error: expect.stringContaining('There is no queue "gone"'), later: true })
    expect(await under.fires('s')).toEqual([])
    expect(await outcomes('good')).toContain('submitted')
    await under.pool.query(`insert into queues (name, retry, retention) select 'gone', retry, retention from queues`)
    await under.pool.query(`update schedules set wake_at = now() where name = 's'`)
    await under.fireAll()
    expect(await judged('s')).toEqual(['submitted'])
    expect((await state('s')).error).toBeNull()
  })

  test('a fire whose key a client took for a task of its own is told as refused', async () => {
    await under.put('s', { cron: YEARLY })
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    await under.pool.query(`update tasks set fingerprint = 'other'`)
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    expect(await judged('s')).toEqual(['submitted', 'refused'])
  })

  test('a schedule that cannot be read is postponed with the reason, harms no other, and a PUT repairs it', async () => {
    await under.put('bad')
    await under.put('good')
    await under.pool.query(
      `update schedules set timezone = 'Mars/Olympus', wake_at = now() - interval '1 h' where name = 'bad'`,
    )
    await under.unseenFor('good', '2 seconds')
    await under.fireAll()
    expect((await state('bad')).error).toContain('time zone')
    expect(under.logged).toContainEqual(expect.objectContaining({ event: 'schedule-failed', schedule: 'bad' }))
    expect(await outcomes('good')).toContain('submitted')
    await under.schedules.setPaused('bad', true)
    await under.schedules.put('bad', { ...WANTED, paused: false })
    expect((await state('bad')).error).toBeNull()
  })

  test('a deleted schedule fires no more, and its tasks stay', async () => {
    await under.put('s')
    await under.unseenFor('s', '2 seconds')
    await under.fireAll()
    const made = await under.tasks()
    expect(made.length).toBeGreaterThanOrEqual(2)
    expect(await under.schedules.remove('s')).toBe(true)
    expect(await under.schedules.remove('s')).toBe(false)
    await under.fireAll()
    expect(await under.tasks()).toEqual(made)
    expect(await under.fires('s')).toEqual([])
  })

  test('two schedulers at once make hundreds of fires, none doubled, none lost', async () => {
    const names = Array.from({ length: 20 }, (_, i) => `s-${i}`)
    for (const name of names) await under.put(name)
    await under.pool.query(
      `update schedules set cursor = date_trunc('second', now()) - interval '30 s', wake_at = now()`,
    )
    const [a, b] = [under.scheduler(), under.scheduler()]
    await Promise.all([a.scheduler.start(), b.scheduler.start()])
    const enough = async () => {
      const { rows } = await under.pool.query<{ least: number; schedules: number }>(
        `select min(made)::int as least, count(*)::int as schedules
         from (select count(*) as made from fires group by schedule) f`,
      )
      return rows[0]?.schedules === names.length && rows[0].least >= 33
    }
    await until(enough, { timeoutMs: 60_000, what: '33 fires of each of 20 schedules' })
    await Promise.all([a.scheduler.stop(), b.scheduler.stop()])
    const { rows } = await under.pool.query(
      `select schedule, count(*)::int as made, count(distinct fire_at)::int as times, count(distinct task_id)::int as tasks,
         (extract(epoch from max(fire_at) - min(fire_at)) + 1)::int as seconds
       from fires where outcome = 'submitted' group by schedule`,
    )
    expect(rows).toHaveLength(names.length)
    for (const { schedule, made, times, tasks, seconds } of rows) {
      expect([schedule, times, tasks, seconds]).toEqual([schedule, made, made, made])
    }
    const { rows: keys } = await under.pool.query(
      `select count(*)::int as tasks, count(distinct idempotency_key)::int as keys from tasks`,
    )
    expect(keys[0].tasks).toBe(keys[0].keys)
    expect(keys[0].tasks).toBe(rows.reduce((sum, row) => sum + row.made, 0))
  }, 90_000)

  test('schedulers whose connections are cut again and again lose no fire and double none', async () => {
    const names = Array.from({ length: 10 }, (_, i) => `s-${i}`)
    for (const name of names) await under.put(name, { missed: 'all' })
    await under.pool.query(
      `update schedules set cursor = date_trunc('second', now()) - interval '40 s', wake_at = now()`,
    )
    const [a, b] = [under.scheduler(), under.scheduler()]
    await Promise.all([a.scheduler.start(), b.scheduler.start()])
    let cuts = 0
    let before = -1
    const done = async () => {
      const { rows } = await under.pool.query<{ made: number; least: number; schedules: number }>(
        `select coalesce(sum(made), 0)::int as made, min(made)::int as least, count(*)::int as schedules
         from (select count(*) as made from fires group by schedule) f`,
      )
      const { made, least, schedules } = rows[0] as { made: number; least: number; schedules: number }
      if (made > before) {
        before = made
        const cut = await under.pool.query(
          `select pg_terminate_backend(pid) from pg_stat_activity
           where datname = current_database() and application_name = 'scheduler'`,
        )
        cuts += cut.rowCount ?? 0
      }
      a.scheduler.wake()
      b.scheduler.wake()
      return cuts > 5 && schedules === names.length && least >= 42
    }
    await until(done, { timeoutMs: 60_000, what: '42 fires of each of 10 schedules' })
    await Promise.all([a.scheduler.stop(), b.scheduler.stop()])
    const { rows } = await under.pool.query(
      `select count(*)::int as made, count(distinct fire_at)::int as times,
         (extract(epoch from max(fire_at) - min(fire_at)) + 1)::int as seconds
       from fires where outcome = 'submitted' group by schedule`,
    )
    for (const { made, times, seconds } of rows) expect([times, seconds]).toEqual([made, made])
  }, 90_000)

  test("this process's clock, wrong by a year, moves nothing: Postgres's decides", async () => {
    await under.put('hourly', { cron: '0 0 1 1 *' })
    await under.put('now')
    const before = (await state('hourly')).cursor
    try {
      for (const days of [365, -365]) {
        setSystemTime(new Date(Date.now() + days * 86_400_000))
        await under.unseenFor('now', '3 seconds')
        await under.fireAll()
        setSystemTime()
      }
    } finally {
      setSystemTime()
    }
    expect((await state('hourly')).cursor).toBe(before)
    expect(await outcomes('hourly')).toEqual([])
    for (const fire of await under.fires('now')) {
      expect(Math.abs(Date.parse(fire.fire_at) - Date.now())).toBeLessThan(60_000)
    }
    expect(await outcomes('now')).toContain('submitted')
  })

  test('between two polls it sleeps until the next fire, and a change wakes it', async () => {
    const clock = new ManualClock()
    const { scheduler } = under.scheduler({ clock })
    const [periodic] = scheduler.periodic
    await scheduler.start()
    await until(() => periodic?.state().nextAt !== undefined, { what: 'the first sleep' })
    expect(periodic?.state()).toMatchObject({ runs: 1, nextAt: 5_000 })
    await under.put('s', { cron: '0 0 1 1 *' })
    await under.unseenFor('s', '400 days')
    scheduler.wake()
    await until(async () => (await outcomes('s')).includes('submitted'), { what: 'the fire' })
    await under.put('soon')
    scheduler.wake()
    await until(() => (periodic?.state().nextAt ?? 9_999) <= 1_001, { what: 'a sleep until the next second' })
  })

  test('the history is bounded, and still knows the live task that overlap skip waits for', async () => {
    await under.put('s', { overlap: 'skip', cron: '0 0 1 1 *' })
    const first = await under.schedules.runNow('s')
    await under.pool.query(
      `insert into fires (schedule, fire_at, outcome) select 's', now(), 'overlap' from generate_series(1, 300)`,
    )
    await under.unseenFor('s', '400 days')
    await under.fireAll()
    const { rows } = await under.pool.query(`select count(*)::int as kept, min(id)::int as oldest from fires`)
    expect(rows[0].kept).toBeLessThanOrEqual(202)
    const fires = await under.fires('s')
    expect(fires.some((fire) => fire.task_id === first?.taskId)).toBe(true)
    expect(fires.filter((fire) => fire.outcome === 'submitted')).toHaveLength(1)
  })

  test('what is due is found by its index', async () => {
    await under.pool.query(
      `insert into schedules (name, cron, timezone, task, queue, overlap, missed, jitter_ms, paused, cursor, wake_at)
       select 's-' || i, '* * * * *', 'UTC', $1::text::json, 'q', 'allow', 'last', 0, false, now(), now() + i * interval '1 h'
       from generate_series(1, 5000) i`,
      [TASK],
    )
    await under.pool.query('analyze schedules')
    const { rows } = await under.pool.query(
      `explain select name from schedules where not paused and wake_at <= now() order by wake_at limit 1 for update skip locked`,
    )
    expect(JSON.stringify(rows)).toContain('schedules_wake')
  })
})
