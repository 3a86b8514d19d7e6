import type { Broker } from '../broker/broker.ts'
import { realClock, within } from '../runtime/clock.ts'
import type { Database } from '../store/database/database.ts'
import type { RegistryState } from '../store/sources/managed.ts'
import type { ReadinessCheck } from './routes/health.ts'

export interface ReadinessDeps {
  pool: Database['pool']
  /** The database is Longshore's own. */
  embedded: boolean
  broker: Pick<Broker, 'kind' | 'state'>
  /** False while the node's last beat is too old to start anything. */
  mayStart(): boolean
  /** How the last look at the list of FTP connections went; left out: there is no such list. */
  registry?: (() => Promise<RegistryState | undefined>) | undefined
}

const CHECK_WITHIN_MS = 2_000

/** What a node needs to work, and which engines it uses. Open to everybody: what is wrong is told, and where things are is not. Never rejects. */
export async function checkReadiness({
  pool,
  embedded,
  broker,
  mayStart,
  registry,
}: ReadinessDeps): Promise<{ checks: ReadinessCheck[] }> {
  const engine = embedded ? 'embedded Postgres' : 'Postgres'
  const answer = pool.query<{ version: string }>(`select current_setting('server_version') as version`).then(
    ({ rows }) => ({ ok: true, detail: `${engine} ${rows[0]?.version}` }),
    () => ({ ok: false, detail: `${engine} cannot be asked; the log says why` }),
  )
  const silent = { ok: false, detail: `${engine} did not answer in ${CHECK_WITHIN_MS} ms` }
  const database = await within(realClock, CHECK_WITHIN_MS, answer, silent)
  const beats = mayStart()
  const list = database.ok && registry ? [await registryCheck(registry)] : []
  return {
    checks: [
      { name: 'database', ...database },
      { name: 'broker', ...brokerCheck(broker) },
      {
        name: 'node',
        ok: beats,
        detail: beats ? 'beats' : 'its last beat is too old; it starts nothing until the database answers',
      },
      ...list,
    ],
  }
}

/** What was polled goes on by the list before. */
async function registryCheck(read: () => Promise<RegistryState | undefined>): Promise<ReadinessCheck> {
  const about = { name: 'registry', dispensable: true }
  const silent = { ok: false, detail: 'the database does not tell' }
  const told = read().then(registryDetail, () => silent)
  return { ...about, ...(await within(realClock, CHECK_WITHIN_MS, told, silent)) }
}

function registryDetail(state: RegistryState | undefined): Pick<ReadinessCheck, 'ok' | 'detail'> {
  if (!state?.lastAt) return { ok: true, detail: 'the list was not fetched yet' }
  if (state.error !== null) {
    const since = state.lastGoodAt === null ? 'and never could' : `the last one that could is of ${state.lastGoodAt}`
    return { ok: false, detail: `the list cannot be used, ${since}; the log says why` }
  }
  const refused = state.refused.length
  if (refused > 0) return { ok: false, detail: `${refused} connections of the list cannot be used; the log says why` }
  return { ok: true, detail: `${state.sources} sources by the list of ${state.lastAt}` }
}

/** Without its broker a node takes tasks all the same; they wait in Postgres. */
function brokerCheck(broker: ReadinessDeps['broker']): Omit<ReadinessCheck, 'name'> {
  if (broker.kind === 'in-process') return { ok: true, detail: 'in-process' }
  const { status, since } = broker.state()
  const waits = 'tasks wait in Postgres; the log says why'
  switch (status) {
    case 'up':
      return { ok: true, detail: 'RabbitMQ' }
    case 'down':
      return { ok: false, dispensable: true, detail: `RabbitMQ is away since ${since}, ${waits}` }
    case 'blocked':
      return { ok: false, dispensable: true, detail: `RabbitMQ takes no messages since ${since}, ${waits}` }
    default:
      return status satisfies never
  }
}
