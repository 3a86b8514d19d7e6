import { afterEach, describe, expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { sql } from 'kysely'
import { pino } from 'pino'
import { migrations } from '../../../db/migrations/index.ts'
import { openDatabase } from '../../../src/store/database/database.ts'
import { migrate, SchemaRefusal, schemaStatus, versionRefusal } from '../../../src/store/database/migrate.ts'
import { ENGINES, type Engine, emptyDatabase } from '../../support/database.ts'

const log = pino({ level: 'silent' })
const names = Object.keys(migrations)
const cleanups: (() => Promise<unknown>)[] = []

afterEach(async () => {
  for (const clean of cleanups.splice(0).reverse()) await clean()
})

/** A database without any schema. */
async function noSchema(engine: Engine) {
  const { url, drop } = await emptyDatabase(engine)
  cleanups.push(drop)
  const database = openDatabase({ connection: { url }, poolSize: 2, log })
  cleanups.push(() => database.close())
  return { url, database }
}

describe.each(ENGINES)('%s', (engine) => {
  test('an empty database gets every migration, a second time none, and the status says so', async () => {
    const { database } = await noSchema(engine)
    expect(await schemaStatus(database)).toEqual({ applied: [], pending: names, unknown: [] })
    await migrate(database, log)
    expect(await schemaStatus(database)).toEqual({ applied: names, pending: [], unknown: [] })
    await migrate(database, log)
    expect((await sql`select count(*) as n from tasks`.execute(database.db)).rows).toEqual([{ n: 0 }])
  })

  test('of six processes that migrate at once one applies and all end well', async () => {
    const { url, database } = await noSchema(engine)
    const script = join(import.meta.dir, '../migrating-process.ts')
    const runs = Array.from(
      { length: 6 },
      () =>
        new Promise<{ code: number | null; text: string }>((resolve) => {
          const child = spawn(process.execPath, [script, url], { stdio: ['ignore', 'pipe', 'inherit'] })
          let text = ''
          child.stdout.on('data', (part) => (text += part))
          child.once('close', (code) => resolve({ code, text }))
        }),
    )
    const ends = await Promise.all(runs)
    expect(ends.map((end) => end.code)).toEqual([0, 0, 0, 0, 0, 0])
    const applied = ends.flatMap((end) => end.text.split('\n').filter((line) => line.includes('"migrated"')))
    expect(applied).toHaveLength(names.length)
    expect((await schemaStatus(database)).applied).toEqual(names)
  }, 60_000)

  test('a schema of a newer version is refused with what to do, and stays as it is', async () => {
    const { database } = await noSchema(engine)
    await migrate(database, log)
    await sql`insert into kysely_migration values ('9999-from-the-future', '2099-01-01T00:00:00.000Z')`.execute(
      database.db,
    )
    const refused = migrate(database, log)
    await expect(refused).rejects.toBeInstanceOf(SchemaRefusal)
    await expect(refused).rejects.toThrow('9999-from-the-future')
    expect((await schemaStatus(database)).unknown).toEqual(['9999-from-the-future'])
  })

  test('a migration that fails is named, with its cause, and none of that call stays', async () => {
    const { database } = await noSchema(engine)
    const broken = {
      ...migrations,
      '9000-good': {
        up: async (db: Parameters<(typeof migrations)[string]['up']>[0]) =>
          void (await sql`create table good ()`.execute(db)),
      },
      '9001-broken': {
        up: async (db: Parameters<(typeof migrations)[string]['up']>[0]) => void (await sql`create tabel`.execute(db)),
      },
    }
    const error = await migrate(database, log, broken).catch((thrown: Error) => thrown)
    expect((error as Error).message).toStartWith('Migration 9001-broken failed, nothing was changed: syntax error')
    expect(String((error as Error).cause)).toContain('syntax error')
    expect(await schemaStatus(database)).toMatchObject({ applied: [] })
    expect((await sql`select to_regclass('good') as found`.execute(database.db)).rows).toEqual([{ found: null }])
    await migrate(database, log)
    expect((await schemaStatus(database)).applied).toEqual(names)
  })
})

test('a server older than Postgres 15 is refused with its version', () => {
  expect(versionRefusal(140_011, '14.11')).toContain('needs Postgres 15 or later and this server is 14.11')
  expect(versionRefusal(150_000, '15.0')).toBeUndefined()
  expect(versionRefusal(180_004, '18.4')).toBeUndefined()
})
