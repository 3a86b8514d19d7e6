import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { v7 as uuidv7 } from 'uuid'
import { inTransaction } from '../../src/store/database/statement.ts'
import {
  appendEvents,
  eventsWantedMs,
  lastEvent,
  missedEvents,
  pruneEvents,
  readEvents,
  wantEvents,
} from '../../src/store/events.ts'
import { MAKING_LOCK } from '../../src/task/target/names.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../support/database.ts'

for (const engine of ENGINES) {
  describe(`task events on ${engine}`, () => {
    let test_: TestDatabase
    beforeAll(async () => {
      test_ = await testDatabase(engine)
    }, 60_000)
    afterAll(() => test_.drop())
    beforeEach(async () => {
      await test_.database.pool.query('delete from events; delete from tasks')
    })
    const pool = () => test_.database.pool

    async function insert(parentId: string | null = null): Promise<string> {
      const id = uuidv7()
      await pool().query(
        `insert into tasks (id, queue, type, payload, priority, due_at, max_attempts, origin, parent_id)
         values ($1, 'q', 't', '"a payload"', 0, now(), 1, 'api', $2)`,
        [id, parentId],
      )
      return id
    }

    test('a batch tells its tasks as they are now, their parents too, and leaves out what is gone', async () => {
      const parent = await insert()
      const child = await insert(parent)
      const gone = uuidv7()
      await pool().query(`update tasks set status = 'running', attempt = 1 where id = $1`, [child])
      await appendEvents(pool(), [child, gone], false)
      const [batch, ...more] = await readEvents(pool(), 0, 10)
      expect(more).toEqual([])
      const common = { queue: 'q', type: 't', origin: 'api' as const }
      expect(batch?.changes).toEqual([
        { id: parent, ...common, status: 'pending', attempt: 0, parentId: null },
        { id: child, ...common, status: 'running', attempt: 1, parentId: parent },
      ])
      expect(JSON.stringify(batch)).not.toContain('a payload')
      await appendEvents(pool(), [gone], false)
      expect(await lastEvent(pool())).toBe(batch?.id as number)
    })

    test('what was missed is known until a gap, the bound or the end of what is kept', async () => {
      const ids = await Promise.all(Array.from({ length: 4 }, () => insert()))
      for (const id of ids) await appendEvents(pool(), [id], false)
      const [first, second] = await readEvents(pool(), 0, 10)
      const after = (id = 0, max = 100) => missedEvents(pool(), id, max)
      expect((await after(first?.id))?.map(({ changes }) => changes?.[0]?.id)).toEqual(ids.slice(1))
      expect(await after(await lastEvent(pool()))).toEqual([])
      expect(await after(first?.id, 2)).toBeUndefined()
      expect(await after((first?.id ?? 0) - 1)).toBeUndefined()
      expect(await after(999_999_999)).toBeUndefined()

      await pruneEvents(pool(), { tasks: 2, minutes: 10 })
      expect(await after(second?.id)).toBeUndefined()
      const kept = await readEvents(pool(), 0, 10)
      expect(kept).toHaveLength(2)

      await appendEvents(pool(), [ids[0] as string], true)
      expect(await after(kept.at(-1)?.id)).toBeUndefined()
    })

    test('writers at the same time leave no hole into which something comes late, and the last word is the newest', async () => {
      const id = await insert()
      const seen: number[] = []
      let ended = false
      const reading = (async () => {
        while (!ended) {
          const batches = await readEvents(pool(), seen.at(-1) ?? 0, 100)
          seen.push(...batches.map((batch) => batch.id))
        }
      })()
      await Promise.all(
        Array.from({ length: 6 }, async () => {
          for (let round = 0; round < 10; round++) {
            await pool().query('update tasks set attempt = attempt + 1 where id = $1', [id])
            await appendEvents(pool(), [id], false)
          }
        }),
      )
      ended = true
      await reading
      const batches = await readEvents(pool(), 0, 1_000)
      expect(seen).toEqual(batches.map((batch) => batch.id).slice(0, seen.length))
      const attempts = batches.map(({ changes }) => changes?.[0]?.attempt ?? 0)
      expect(attempts).toEqual([...attempts].sort((a, b) => a - b))
      expect(attempts.at(-1)).toBe(60)
    })

    test('events are written while somebody makes a table', async () => {
      const id = await insert()
      await inTransaction(pool(), async (tx) => {
        await tx.query('select pg_advisory_xact_lock($1)', [MAKING_LOCK])
        await appendEvents(pool(), [id], false)
      })
      expect(await readEvents(pool(), 0, 10)).toMatchObject([{ changes: [{ id }] }])
    })

    test('events are wanted for as long as somebody asked for', async () => {
      expect(await eventsWantedMs(pool())).toBe(0)
      await wantEvents(pool(), 30_000)
      const left = await eventsWantedMs(pool())
      expect(left).toBeGreaterThan(20_000)
      expect(left).toBeLessThanOrEqual(30_000)
      await wantEvents(pool(), -1)
      expect(await eventsWantedMs(pool())).toBe(0)
    })
  })
}
