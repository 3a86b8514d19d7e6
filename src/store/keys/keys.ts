import { createHash, randomBytes, timingSafeEqual } from 'node:crypto'
import { type Kysely, sql } from 'kysely'
import { type Clock, within } from '../../runtime/clock.ts'
import type { Principal, Scope } from '../../task/scope.ts'
import type { Tables } from '../database/tables.ts'

/** A key as it is shown: without its secret, which nobody has but its owner. */
export interface Key {
  id: string
  name: string
  scopes: Scope[]
  createdAt: string
}

/** The id of a key that was given and does not have our form. */
const GIVEN_KEY_ID = 'admin'

/** A new key, `ls_<id>_<256-bit secret>`. */
export function newKey(): { id: string; key: string } {
  const id = randomBytes(8).toString('hex')
  return { id, key: `ls_${id}_${randomBytes(32).toString('base64url')}` }
}

/** The id that a key names. */
export function idOfKey(key: string): string {
  return /^ls_([0-9a-z]{1,64})_/.exec(key)?.[1] ?? GIVEN_KEY_ID
}

export function hashOfKey(key: string): Buffer {
  return createHash('sha256').update(key).digest()
}

const COLUMNS = ['id', 'name', 'scopes', 'created_at as createdAt'] as const

/** Keys by id, those after `after`. */
export async function listKeys(db: Kysely<Tables>, limit: number, after = ''): Promise<Key[]> {
  const rows = await db.selectFrom('keys').select(COLUMNS).where('id', '>', after).orderBy('id').limit(limit).execute()
  return rows as Key[]
}

/** Makes a key; its secret is in the answer and nowhere else. */
export async function createKey(db: Kysely<Tables>, name: string, scopes: Scope[]): Promise<Key & { key: string }> {
  const { id, key } = newKey()
  const row = await db
    .insertInto('keys')
    .values({ id, name, scopes, hash: hashOfKey(key) })
    .returning(COLUMNS)
    .executeTakeFirstOrThrow()
  return { ...(row as Key), key }
}

/** Deletes a key unless nobody could administer any more. */
export function deleteKey(db: Kysely<Tables>, id: string): Promise<'deleted' | 'unknown' | 'last-admin'> {
  return db.transaction().execute(async (tx) => {
    // Locks every admin key, so that two deletions at once do not each take the other for the one that stays.
    const { rows } = await sql<{ id: string }>`
      select id from keys where scopes @> array['admin'] order by id for update`.execute(tx)
    if (rows.length === 1 && rows[0]?.id === id) return 'last-admin'
    const { numDeletedRows } = await tx.deleteFrom('keys').where('id', '=', id).executeTakeFirst()
    return numDeletedRows > 0n ? 'deleted' : 'unknown'
  })
}

/** How long the keys read from the database are taken as they are, in milliseconds: a deleted key works at most that long elsewhere. */
const FRESH_MS = 5_000
/** Unknown keys, and a database that is away, are asked about at most once in this time. */
const ASK_AGAIN_MS = 1_000
/** A known key waits at most this long for a slow database before it is taken as it was. */
const PATIENCE_MS = 1_000

export interface Authenticator {
  /** Whose key this is; undefined when unknown. Rejects with the database's error when that cannot be told. */
  authenticate(key: string): Promise<Principal | undefined>
  /** Reads the keys anew at the next request; call it when they were changed here. */
  forget(): void
}

interface KnownKey {
  hash: Buffer
  principal: Principal
}

/**
 * Keeps all keys in memory: one read in 5 s serves every request, whatever is sent. While the database is away,
 * keys that were known stay so.
 */
export function authenticator(db: Kysely<Tables>, clock: Clock): Authenticator {
  let known: Map<string, KnownKey> | undefined
  let readAt = Number.NEGATIVE_INFINITY
  let failure: { at: number; error: unknown } | undefined
  let reading: Promise<void> | undefined

  const read = async () => {
    const startedAt = clock.now()
    const rows = await db.selectFrom('keys').select(['id', 'name', 'scopes', 'hash']).execute()
    return { startedAt, rows }
  }
  const refresh = () => {
    if (reading) return reading
    const mine = read().then(
      ({ startedAt, rows }) => {
        // Forgotten meanwhile: what was read may be older than the change.
        if (reading !== mine) return
        reading = undefined
        failure = undefined
        readAt = startedAt
        known = new Map(
          rows.map(({ id, name, scopes, hash }) => [
            id,
            { hash, principal: { keyId: id, name, scopes: scopes as Scope[] } },
          ]),
        )
      },
      (error: unknown) => {
        if (reading === mine) reading = undefined
        failure = { at: clock.now(), error }
        throw error
      },
    )
    reading = mine
    return mine
  }
  const find = (key: string): Principal | undefined => {
    const entry = known?.get(idOfKey(key))
    return entry && timingSafeEqual(entry.hash, hashOfKey(key)) ? entry.principal : undefined
  }
  const recently = (at: number | undefined, ms: number) => at !== undefined && clock.now() - at < ms
  /** True when the keys were read again within our patience. */
  const refreshedSoon = () => {
    const refreshed = refresh().then(
      () => true,
      () => false,
    )
    return within(clock, PATIENCE_MS, refreshed, false)
  }

  return {
    async authenticate(key) {
      const before = find(key)
      if (before) {
        if (recently(readAt, FRESH_MS) || recently(failure?.at, ASK_AGAIN_MS)) return before
        if (!(await refreshedSoon())) {
          failure ??= { at: clock.now(), error: undefined }
          failure.at = clock.now()
          return before
        }
        if (known) return find(key)
      }
      if (known && recently(readAt, ASK_AGAIN_MS)) return undefined
      if (failure?.error !== undefined && recently(failure.at, ASK_AGAIN_MS)) throw failure.error
      do await refresh()
      while (!known)
      return find(key)
    },
    forget() {
      known = undefined
      reading = undefined
      readAt = Number.NEGATIVE_INFINITY
    },
  }
}
