import type { Pool } from 'pg'
import type { SecretBox } from '../../runtime/secret-box.ts'
import { inTransaction } from '../database/statement.ts'

const A_BATCH = 200

/** What a secret is about, as associated data. */
export const aboutSource = (id: string): string => `source:${id}`

/** A secret that could not be encrypted anew. */
export interface NotRotated {
  /** Of the source. */
  id: string
  name: string
  reason: string
}

/**
 * Encrypts every stored secret with the box's first key that another one has encrypted, in batches; a secret that no key opens
 * is left as it is, and told. May run while sources are polled and changed, and again.
 */
export async function rotateSecrets(pool: Pool, box: SecretBox): Promise<{ rotated: number; failed: NotRotated[] }> {
  const failed: NotRotated[] = []
  let rotated = 0
  let after = '00000000-0000-0000-0000-000000000000'
  for (;;) {
    const done = await inTransaction(pool, async (tx) => {
      const { rows } = await tx.query<{ id: string; name: string; secret: Buffer; keyId: string }>(
        `select id, name, secret, secret_key as "keyId" from sources
         where secret is not null and secret_key <> $1 and id > $2 order by id limit $3 for update`,
        [box.keyId, after, A_BATCH],
      )
      const anew = rows.map((row) => ({ ...row, ...resealed(box, row) }))
      const good = anew.filter((row) => row.bytes !== undefined)
      await tx.query(
        `update sources s set secret = n.secret, secret_key = $3
         from unnest($1::uuid[], $2::bytea[]) as n(id, secret) where s.id = n.id`,
        [good.map(({ id }) => id), good.map(({ bytes }) => bytes), box.keyId],
      )
      return anew
    })
    for (const { id, name, reason } of done) if (reason !== undefined) failed.push({ id, name, reason })
    rotated += done.filter(({ reason }) => reason === undefined).length
    if (done.length < A_BATCH) return { rotated, failed }
    after = done.at(-1)?.id ?? after
  }
}

function resealed(
  box: SecretBox,
  { id, secret, keyId }: { id: string; secret: Buffer; keyId: string },
): { bytes?: Buffer; reason?: string } {
  try {
    return { bytes: box.seal(box.open({ keyId, bytes: secret }, aboutSource(id)), aboutSource(id)).bytes }
  } catch (error) {
    return { reason: error instanceof Error ? error.message : String(error) }
  }
}
