import { pino } from 'pino'
import { startEmbeddedPostgres } from '../../../src/store/postgres/embedded.ts'

// usage: bun parent.ts <data dir> [native dir]
// Starts the embedded Postgres, prints one line of JSON, and stays until SIGTERM; prints the refusal and exits with 1.
const [dataDir, nativeDir] = process.argv.slice(2)
const log = pino({ level: 'silent' })
try {
  const postgres = await startEmbeddedPostgres({ dataDir: dataDir as string, log, ...(nativeDir ? { nativeDir } : {}) })
  const { connection, adopted, pid } = postgres
  process.once('SIGTERM', async () => {
    await postgres.stop()
    process.exit(0)
  })
  console.log(JSON.stringify({ connection, adopted, pid }))
  setInterval(() => {}, 60_000)
} catch (error) {
  const { reason, message } = error as { reason?: string; message: string }
  console.log(JSON.stringify({ reason, message }))
  process.exit(1)
}
