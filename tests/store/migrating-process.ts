import { createLog } from '../../src/runtime/log.ts'
import { openDatabase } from '../../src/store/database/database.ts'
import { migrate } from '../../src/store/database/migrate.ts'

// usage: bun migrating-process.ts <url>; logs each migration that this process applied
const log = createLog('info')
const database = openDatabase({ connection: { url: process.argv[2] as string }, poolSize: 2, log })
await migrate(database, log).finally(() => database.close())
