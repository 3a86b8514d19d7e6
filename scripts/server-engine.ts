/**
 * The Postgres server that tests and checks use, beside the embedded one. As a command: prints its superuser's URL, for
 * `TEST_SERVER_URL`.
 */
import { randomBytes } from 'node:crypto'
import pg from 'pg'

const LOCAL = 'postgres://postgres@127.0.0.1:5432/postgres'
const ROLE = 'longshore_test'

export type ServerEngine = { url: string } | { url?: undefined; reason: string }

/**
 * Finds a server: `TEST_SERVER_URL`, else the local one where `postgres` is trusted. As root on Debian the local cluster is
 * started when it is down; in CI, where the machine is thrown away, a superuser of our own is made when `postgres` is not
 * trusted.
 */
export async function serverEngine(): Promise<ServerEngine> {
  const given = process.env.TEST_SERVER_URL
  if (given) {
    const refusal = await refusalOf(given)
    return refusal ? { reason: `the server at TEST_SERVER_URL does not answer: ${refusal}` } : { url: given }
  }
  let refusal = await refusalOf(LOCAL)
  if (refusal && process.getuid?.() === 0 && Bun.which('pg_ctlcluster')) {
    startClusters()
    refusal = await refusalOf(LOCAL)
    if (refusal && process.env.CI) {
      const url = makeSuperuser()
      refusal = await refusalOf(url)
      if (!refusal) return { url }
    }
  }
  return refusal ? { reason: `no Postgres server at ${LOCAL} (${refusal}); set TEST_SERVER_URL` } : { url: LOCAL }
}

/** Why the server cannot be used; undefined when it can. */
async function refusalOf(url: string): Promise<string | undefined> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000 })
  client.on('error', () => {})
  try {
    await client.connect()
    await client.query('select 1')
    return undefined
  } catch (error) {
    return (error as Error).message || String(error)
  } finally {
    await client.end().catch(() => {})
  }
}

/** Starts every Debian cluster that is down; pg_ctlcluster returns when it takes connections. */
function startClusters(): void {
  const { stdout } = Bun.spawnSync(['pg_lsclusters', '--no-header'])
  for (const line of stdout.toString().trim().split('\n')) {
    const [version, name, , status] = line.split(/\s+/)
    if (!version || !name || status?.startsWith('online')) continue
    Bun.spawnSync(['pg_ctlcluster', '--skip-systemctl-redirect', version, name, 'start'], {
      stdio: ['ignore', process.stderr.fd, process.stderr.fd],
    })
  }
}

function makeSuperuser(): string {
  const password = randomBytes(16).toString('hex')
  // Kept when it is there: databases of an earlier run may belong to it.
  const exists = `exists (select from pg_roles where rolname = '${ROLE}')`
  const sql = `do $$ begin if not ${exists} then create role ${ROLE}; end if; end $$;
    alter role ${ROLE} superuser login password '${password}'`
  Bun.spawnSync(['runuser', '-u', 'postgres', '--', 'psql', '-qd', 'postgres', '-c', sql], {
    cwd: '/',
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
  })
  return `postgres://${ROLE}:${password}@127.0.0.1:5432/postgres`
}

if (import.meta.main) {
  const engine = await serverEngine()
  if (engine.url === undefined) {
    console.error(engine.reason)
    process.exit(1)
  }
  console.log(engine.url)
}
