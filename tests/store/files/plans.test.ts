import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { MOVING, movingFiles } from '../../../src/store/files/list.ts'
import { NOTABLE } from '../../../src/store/files/listing.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'

describe.each(ENGINES)('plans of hot statements on files (%s)', (engine) => {
  let test_: TestDatabase
  const source = v7()
  beforeAll(async () => {
    test_ = await testDatabase(engine)
    const { pool } = test_.database
    await pool.query(`insert into sources (id, name, settings, next_poll_at) values ($1, 'a', '{}', now())`, [source])
    await pool.query(
      `insert into files (id, source, path, status, size, modified)
       select gen_random_uuid(), $1, '/out/file-' || n, 'done', 1, 'x' from generate_series(1, 20000) n`,
      [source],
    )
    await pool.query('analyze files')
  })
  afterAll(() => test_.drop())

  test('a listing is compared by one probe of an index a file', async () => {
    const paths = Array.from({ length: 5_000 }, (_, number) => `/out/file-${number}`)
    const { rows } = await test_.database.pool.query<{ 'QUERY PLAN': string }>(`explain (costs off) ${NOTABLE}`, [
      source,
      paths,
      paths.map(() => 1),
      paths.map(() => 'x'),
    ])
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
    expect(plan).toContain('files_source_path_generation_key')
    expect(plan).not.toContain('Seq Scan on files')
  })

  test('files on their way are found by indexes, whatever has come and gone before them', async () => {
    const { pool } = test_.database
    const [waits, fetches, delivers, ended, old] = [v7(), v7(), v7(), v7(), v7()]
    await pool.query(
      `insert into files (id, source, path, status, task, seen_at, finished_at) values
         ($2, $1, '/waits', 'seen', null, now() + interval '1 min', null),
         ($3, $1, '/fetches', 'fetching', null, now() - interval '1 day', null),
         ($4, $1, '/delivers', 'done', gen_random_uuid(), now() - interval '2 days', null),
         ($5, $1, '/ended', 'done', gen_random_uuid(), now() + interval '1 min', now() - interval '1 s'),
         ($6, $1, '/old', 'done', gen_random_uuid(), now() + interval '1 min', now() - interval '1 min')`,
      [source, waits, fetches, delivers, ended, old],
    )
    await pool.query(
      `update files set finished_at = now() - interval '1 h' where finished_at is null and path ~ '^/out'`,
    )
    const ids = async (asked: string[], limit: number) => (await movingFiles(pool, asked, limit)).map(({ id }) => id)
    expect((await ids([], 500)).sort()).toEqual([waits, fetches, delivers, ended].sort())
    expect((await ids([old], 500)).sort()).toEqual([waits, fetches, delivers, ended, old].sort())
    expect(await ids([old], 1)).toEqual([old])

    await pool.query('vacuum analyze files')
    const { rows } = await pool.query<{ 'QUERY PLAN': string }>(`explain (costs off) ${MOVING}`, [[old], 500])
    const plan = rows.map((row) => row['QUERY PLAN']).join('\n')
    expect(plan).not.toContain('Seq Scan on files')
  })
})
