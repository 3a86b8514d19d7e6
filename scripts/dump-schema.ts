import { execFileSync } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { testDatabase } from '../tests/support/database.ts'

// usage: bun scripts/dump-schema.ts [--check]
// Writes db/schema.sql from a freshly migrated database on a Postgres 15 server; --check only compares.
const FILE = join(import.meta.dir, '../db/schema.sql')
const HEADER = '-- The schema after every migration. Made by `bun scripts/dump-schema.ts`; do not edit.\n\n'

/** Lines that change without the schema: pg_dump's random token, versions, and the session it sets up. */
const VOLATILE = /^(\\(un)?restrict .*|-- Dumped (from|by) .*|SET .*;|SELECT pg_catalog\.set_config\(.*)$/

async function dump(): Promise<string> {
  const { connection, drop } = await testDatabase('server')
  try {
    if (!('url' in connection)) throw new Error('The server engine is reached by a URL')
    const options = ['--schema-only', '--no-owner', '--no-privileges', '--dbname', connection.url]
    const text = execFileSync('pg_dump', options, { encoding: 'utf8' })
    const major = /^-- Dumped from database version (\d+)/m.exec(text)?.[1]
    if (major !== '15')
      throw new Error(`db/schema.sql is dumped from Postgres 15 and TEST_SERVER_URL leads to ${major}`)
    const lines = text.split('\n').filter((line) => !VOLATILE.test(line))
    return `${HEADER}${lines
      .join('\n')
      .replace(/\n{3,}/g, '\n\n')
      .trim()}\n`
  } finally {
    await drop()
  }
}

const fresh = await dump()
if (!process.argv.includes('--check')) {
  await writeFile(FILE, fresh)
  console.log('db/schema.sql is written')
} else {
  const kept = await readFile(FILE, 'utf8').catch(() => '')
  if (kept !== fresh) {
    const [a, b] = [kept.split('\n'), fresh.split('\n')]
    const line = b.findIndex((text, index) => text !== a[index])
    const at = line < 0 ? b.length : line
    console.error(`db/schema.sql differs from the migrations at line ${at + 1}:`)
    console.error(`- ${a[at] ?? '(nothing)'}\n+ ${b[at] ?? '(nothing)'}`)
    console.error('Run `bun scripts/dump-schema.ts` and commit the result.')
    process.exitCode = 1
  }
}
