import { afterEach, describe, expect, test } from 'bun:test'
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ManualClock } from '../../../src/runtime/clock.ts'
import { Secret } from '../../../src/runtime/log.ts'
import { type AdminKey, ensureAdminKey } from '../../../src/store/keys/admin-key.ts'
import { authenticator, createKey, deleteKey, hashOfKey, idOfKey } from '../../../src/store/keys/keys.ts'
import { ENGINES, type TestDatabase, testDatabase } from '../../support/database.ts'

const undo: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step()
})

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'longshore-keys-'))
  undo.push(() => rm(path, { recursive: true }))
  return path
}

const keyOf = (admin: AdminKey) => ('key' in admin ? admin.key.reveal() : undefined)

describe.each([...ENGINES])('on %s Postgres', (engine) => {
  async function database(): Promise<TestDatabase> {
    const opened = await testDatabase(engine)
    undo.push(() => opened.drop())
    return opened
  }

  /** The keys that open something now, by a node that starts afresh. */
  async function opens(test: TestDatabase, key: string | undefined): Promise<boolean> {
    if (key === undefined) return false
    const principal = await authenticator(test.database.db, new ManualClock()).authenticate(key)
    return principal?.scopes.includes('admin') ?? false
  }

  test('the first start makes the admin key, in a file that only its owner reads; the second keeps it', async () => {
    const test = await database()
    const dir = await folder()
    const file = join(dir, 'data', 'admin.key')
    const first = await ensureAdminKey(test.database.db, { file })
    expect(first.source).toBe('created')
    expect((await readFile(file, 'utf8')).trim()).toBe(keyOf(first) ?? '')
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    expect(await readdir(join(dir, 'data'))).toEqual(['admin.key'])
    expect(await opens(test, keyOf(first))).toBe(true)

    const second = await ensureAdminKey(test.database.db, { file })
    expect([second.source, keyOf(second)]).toEqual(['kept', keyOf(first)])
  })

  test('of ten first starts at once one decides, and no other leaves a file', async () => {
    const test = await database()
    const dir = await folder()
    const nodes = Array.from({ length: 10 }, (_, i) => join(dir, `${i}.key`))
    const ends = await Promise.all(nodes.map((file) => ensureAdminKey(test.database.db, { file })))
    const winners = ends.flatMap((end, i) => (end.source === 'created' ? [`${i}.key`] : []))
    expect(winners).toHaveLength(1)
    expect(ends.filter(({ source }) => source === 'elsewhere')).toHaveLength(9)
    expect(await readdir(dir)).toEqual(winners)
    expect(await test.database.db.selectFrom('keys').select('id').execute()).toHaveLength(1)
    const winner = ends.find(({ source }) => source === 'created') as AdminKey
    expect(await opens(test, keyOf(winner))).toBe(true)
  })

  test('a start that died between the file and the commit finds its key again', async () => {
    const test = await database()
    const file = join(await folder(), 'admin.key')
    const lost = `ls_0123456789abcdef_${'x'.repeat(43)}`
    await writeFile(file, `${lost}\n`)
    const end = await ensureAdminKey(test.database.db, { file })
    expect([end.source, keyOf(end), await opens(test, lost)]).toEqual(['created', lost, true])
  })

  test('a file of another installation is left alone and named as no key of this one', async () => {
    const test = await database()
    const dir = await folder()
    await ensureAdminKey(test.database.db, { file: join(dir, 'first.key') })
    const other = join(dir, 'other.key')
    await writeFile(other, 'ls_ff_foreign\n')
    expect((await ensureAdminKey(test.database.db, { file: other })).source).toBe('elsewhere')
    expect(await readFile(other, 'utf8')).toBe('ls_ff_foreign\n')
    expect(await opens(test, 'ls_ff_foreign')).toBe(false)
  })

  test('a given key counts, and giving another one revokes it', async () => {
    const test = await database()
    const file = join(await folder(), 'admin.key')
    const made = await ensureAdminKey(test.database.db, { file })
    for (const given of ['a-key-of-my-own-making', 'ls_mine_0123456789', 'another-one-of-mine-0']) {
      const end = await ensureAdminKey(test.database.db, { given: new Secret(given), file })
      expect([end.source, await opens(test, given)]).toEqual(['given', true])
    }
    const gone = await Promise.all(
      [keyOf(made), 'a-key-of-my-own-making', 'ls_mine_0123456789'].map((key) => opens(test, key)),
    )
    expect(gone).toEqual([false, false, false])
  })

  test('only the hash of a key is stored', async () => {
    const test = await database()
    const { key, id } = await createKey(test.database.db, 'billing', ['submit'])
    const row = await test.database.db.selectFrom('keys').selectAll().where('id', '=', id).executeTakeFirstOrThrow()
    expect(row.hash.equals(hashOfKey(key))).toBe(true)
    expect(JSON.stringify(row)).not.toContain(key.slice(-43))
    expect(idOfKey(key)).toBe(id)
  })

  test('authentication asks the database once in five seconds, however many requests come', async () => {
    const test = await database()
    const clock = new ManualClock()
    const { key } = await createKey(test.database.db, 'reader', ['read'])
    const counted = counting(test)
    const { authenticate } = authenticator(test.database.db, clock)
    await Promise.all(Array.from({ length: 50 }, () => authenticate(key)))
    for (let i = 0; i < 50; i++) await authenticate(key)
    expect(counted()).toBe(1)
    clock.advance(5_000)
    await authenticate(key)
    expect(counted()).toBe(2)
    for (let i = 0; i < 50; i++) await authenticate(`ls_${i}_unknown`)
    expect(counted()).toBe(2)
    clock.advance(1_000)
    for (let i = 0; i < 50; i++) await authenticate(`ls_${i}_unknown`)
    expect(counted()).toBe(3)
  })

  test('a deleted key opens nothing five seconds later on other nodes, and at once where it was deleted', async () => {
    const test = await database()
    const clock = new ManualClock()
    await createKey(test.database.db, 'root', ['admin'])
    const { key, id } = await createKey(test.database.db, 'reader', ['read'])
    const here = authenticator(test.database.db, clock)
    const there = authenticator(test.database.db, clock)
    expect([await here.authenticate(key), await there.authenticate(key)].map((p) => p?.name)).toEqual([
      'reader',
      'reader',
    ])
    expect(await deleteKey(test.database.db, id)).toBe('deleted')
    here.forget()
    expect(await here.authenticate(key)).toBeUndefined()
    clock.advance(5_000)
    expect(await there.authenticate(key)).toBeUndefined()
  })

  test('a key that was just made on another node works after a second', async () => {
    const test = await database()
    const clock = new ManualClock()
    const { authenticate } = authenticator(test.database.db, clock)
    expect(await authenticate('ls_00_none')).toBeUndefined()
    const { key } = await createKey(test.database.db, 'reader', ['read'])
    clock.advance(1_000)
    expect((await authenticate(key))?.name).toBe('reader')
  })

  test('while the database is away known keys go on and unknown ones are not judged', async () => {
    const test = await database()
    const clock = new ManualClock()
    const { key } = await createKey(test.database.db, 'reader', ['read'])
    const { authenticate } = authenticator(test.database.db, clock)
    await authenticate(key)
    await test.database.close()
    for (let minute = 0; minute < 3; minute++) {
      clock.advance(60_000)
      expect((await authenticate(key))?.name).toBe('reader')
      await expect(authenticate('ls_00_none')).rejects.toThrow()
    }
  })

  test('nobody is let in before the keys were ever read', async () => {
    const test = await database()
    const { key } = await createKey(test.database.db, 'reader', ['read'])
    await test.database.close()
    await expect(authenticator(test.database.db, new ManualClock()).authenticate(key)).rejects.toThrow()
  })
})

/** Counts the statements that a pool runs from now on. */
function counting({ database: { pool } }: TestDatabase): () => number {
  let statements = 0
  pool.on('acquire', () => {
    statements++
  })
  return () => statements
}
