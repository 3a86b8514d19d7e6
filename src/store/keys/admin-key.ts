import { rm } from 'node:fs/promises'
import type { Kysely } from 'kysely'
import { Secret } from '../../runtime/log.ts'
import { jsonb } from '../database/statement.ts'
import type { Tables } from '../database/tables.ts'
import { keptKey, readKeyFile } from './key-file.ts'
import { hashOfKey, idOfKey, newKey } from './keys.ts'

const SETTING = 'admin-key'
const NAME = 'admin'

/**
 * What became of the admin key: `given` is LONGSHORE_ADMIN_KEY, `created` is new (print it, once), `kept` is the one of an
 * earlier start that still lies in the file, `elsewhere` belongs to another node's file.
 */
export type AdminKey = { source: 'given' | 'created' | 'kept'; key: Secret } | { source: 'elsewhere'; keyId: string }

/**
 * Sees to it that somebody can administer. A given key counts, replacing the one before it. Otherwise the first start
 * makes one and keeps it in `file` (mode 0600); of several first starts at once, one row decides whose.
 */
export async function ensureAdminKey(
  db: Kysely<Tables>,
  { given, file }: { given?: Secret | undefined; file: string },
): Promise<AdminKey> {
  if (given) {
    await replaceAdminKey(db, given.reveal())
    return { source: 'given', key: given }
  }
  const decided = await decidedKeyId(db)
  if (decided === undefined) {
    // The file comes first: a crash after the commit must not leave a key that nobody knows.
    // An empty one stays as it is.
    const key = (await keptKey(file, () => newKey().key)) || newKey().key
    if (await claimAdminKey(db, key)) return { source: 'created', key: new Secret(key) }
  }
  const keyId = decided ?? (await decidedKeyId(db)) ?? 'unknown'
  const key = (await readKeyFile(file)) || undefined
  if (key !== undefined && (await isKeyOf(db, keyId, key))) return { source: 'kept', key: new Secret(key) }
  // Made for a race that was lost: it opens nothing. Another's older file is left alone.
  if (key !== undefined && decided === undefined) await rm(file, { force: true })
  return { source: 'elsewhere', keyId }
}

async function decidedKeyId(db: Kysely<Tables>): Promise<string | undefined> {
  const row = await db.selectFrom('settings').select('value').where('name', '=', SETTING).executeTakeFirst()
  return (row?.value as { keyId: string } | undefined)?.keyId
}

async function isKeyOf(db: Kysely<Tables>, keyId: string, key: string): Promise<boolean> {
  if (idOfKey(key) !== keyId) return false
  const row = await db.selectFrom('keys').select('hash').where('id', '=', keyId).executeTakeFirst()
  return row?.hash.equals(hashOfKey(key)) ?? false
}

const setting = (keyId: string) => ({ name: SETTING, value: jsonb({ keyId }) as never })

/** Stores the key unless another node was first; false when it was. */
function claimAdminKey(db: Kysely<Tables>, key: string): Promise<boolean> {
  return db.transaction().execute(async (tx) => {
    const won = await tx
      .insertInto('settings')
      .values(setting(idOfKey(key)))
      .onConflict((conflict) => conflict.column('name').doNothing())
      .returning('name')
      .executeTakeFirst()
    if (won) await insertAdminKey(tx, key)
    return won !== undefined
  })
}

function replaceAdminKey(db: Kysely<Tables>, key: string): Promise<void> {
  return db.transaction().execute(async (tx) => {
    const keyId = idOfKey(key)
    await tx
      .insertInto('settings')
      .values(setting(keyId))
      .onConflict((conflict) => conflict.column('name').doNothing())
      .execute()
    const before = await tx
      .selectFrom('settings')
      .select('value')
      .where('name', '=', SETTING)
      .forUpdate()
      .executeTakeFirstOrThrow()
    const oldId = (before.value as { keyId: string }).keyId
    if (oldId !== keyId) await tx.deleteFrom('keys').where('id', '=', oldId).execute()
    await tx
      .updateTable('settings')
      .set({ value: setting(keyId).value })
      .where('name', '=', SETTING)
      .execute()
    await insertAdminKey(tx, key)
  })
}

async function insertAdminKey(tx: Kysely<Tables>, key: string): Promise<void> {
  const hash = hashOfKey(key)
  await tx
    .insertInto('keys')
    .values({ id: idOfKey(key), name: NAME, scopes: ['admin', 'work'], hash })
    .onConflict((conflict) => conflict.column('id').doUpdateSet({ hash, scopes: ['admin', 'work'] }))
    .execute()
}
