import { mkdir, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pino } from 'pino'
import { startEmbeddedPostgres } from '../../src/store/postgres/embedded.ts'
import { processIdentity } from '../../src/store/postgres/process-identity.ts'

// usage: bun embedded-keeper.ts <folder> <pid>
// Runs an embedded Postgres in <folder> for the test process <pid>, and removes both when that process is gone.
const [folder, owner] = process.argv.slice(2)
if (!folder || !owner) throw new Error('usage: embedded-keeper.ts <folder> <pid>')

async function tell(name: 'url' | 'failure', text: string): Promise<void> {
  await writeFile(join(folder as string, 'draft'), text)
  await rename(join(folder as string, 'draft'), join(folder as string, name))
}

const alive = processIdentity(Number(owner))
try {
  await mkdir(join(folder, 'postgres'), { recursive: true })
  // Databases come and go by the hundred here; what must survive a power cut is tested on clusters of its own.
  await writeFile(join(folder, 'postgres/local.conf'), 'fsync = off\nmax_connections = 200\n', { mode: 0o644 })
  const postgres = await startEmbeddedPostgres({ dataDir: folder, log: pino({ level: 'silent' }) })
  const { connection } = postgres
  if (!('socketDir' in connection)) throw new Error('The embedded Postgres has a socket')
  const { user, password, socketDir, port } = connection
  await tell('url', `postgres://${user}:${password}@localhost:${port}/postgres?host=${encodeURIComponent(socketDir)}`)

  while (processIdentity(Number(owner)) === alive) await new Promise((resolve) => setTimeout(resolve, 100))
  await postgres.stop()
  await rm(folder, { recursive: true, force: true })
} catch (error) {
  await tell('failure', String(error))
}
process.exit(0)
