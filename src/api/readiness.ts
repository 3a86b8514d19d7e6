import { realClock, within } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Database } from '../store/database.ts'
import type { ReadinessCheck } from './routes/health.ts'

export interface ReadinessDeps {
  pool: Database['pool']
  /** The database is Longshore's own. */
  embedded: boolean
  /** False while the node's last beat is too old to start anything. */
  mayStart(): boolean
}

const CHECK_WITHIN_MS = 2_000

/** What a node needs to work, and which engines it uses. Never rejects. */
export async function checkReadiness({
  pool,
  embedded,
  mayStart,
}: ReadinessDeps): Promise<{ checks: ReadinessCheck[] }> {
  const engine = embedded ? 'embedded Postgres' : 'Postgres'
  const answer = pool.query<{ version: string }>(`select current_setting('server_version') as version`).then(
    ({ rows }) => ({ ok: true, detail: `${engine} ${rows[0]?.version}` }),
    (error) => ({ ok: false, detail: `${engine} cannot be reached: ${messageOf(error)}` }),
  )
  const silent = { ok: false, detail: `${engine} did not answer in ${CHECK_WITHIN_MS} ms` }
  const database = await within(realClock, CHECK_WITHIN_MS, answer, silent)
  const beats = mayStart()
  return {
    checks: [
      { name: 'database', ...database },
      { name: 'broker', ok: true, detail: 'in-process' },
      {
        name: 'node',
        ok: beats,
        detail: beats ? 'beats' : 'its last beat is too old; it starts nothing until the database answers',
      },
    ],
  }
}
