import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../../../runtime/errors.ts'
import type { Database } from '../../../store/database/database.ts'
import { schemaStatus, serverVersion, versionRefusal } from '../../../store/database/migrate.ts'
import { clockSkew, knowsKey, missingRights, tableCare } from '../../../store/diagnosis.ts'
import { idOfKey } from '../../../store/keys/keys.ts'
import type { Settings } from '../../deps.ts'
import { type Finding, fault, ok, warning } from './finding.ts'

const SKEW_WARNING_MS = 1_000
/** Receivers refuse signatures that are five minutes off; a minute leaves room for theirs. */
const SKEW_FAULT_MS = 60_000
const MANY_DEAD_ROWS = 100_000
const DEAD_SHARE = 0.3

/** Whether this is a server and a schema that this version works with; `usable` when the ledger's tables are there. */
export async function checkDatabase(database: Database): Promise<{ findings: Finding[]; usable: boolean }> {
  const { db } = database
  const { number, name } = await serverVersion(database)
  const refusal = versionRefusal(number, name)
  if (refusal) return { findings: [fault('database', refusal, 'Use Postgres 15 or later')], usable: false }
  const findings = [ok('database', `Postgres ${name} answers`), ...(await clock(db)), ...(await rights(db))]
  const { applied, pending, unknown } = await schemaStatus(database)
  if (unknown.length > 0) {
    findings.push(
      fault('schema', `A newer Longshore made it (${unknown.join(', ')})`, 'Use that version or a later one'),
    )
  } else if (pending.length > 0) {
    const what = applied.length === 0 ? 'The database is empty' : `The schema lacks ${pending.join(', ')}`
    findings.push(fault('schema', what, 'longshore migrate up, or start a node without MIGRATE=off'))
  } else findings.push(ok('schema', `${applied.at(-1)} is the latest migration`))
  const denied = findings.some(({ check, level }) => check === 'rights' && level === 'fault')
  return { findings, usable: applied.length > 0 && pending.length === 0 && !denied }
}

async function clock(db: Database['db']): Promise<Finding[]> {
  const { skewMs, uncertainMs } = await clockSkew(db)
  const off = Math.max(0, Math.abs(skewMs) - uncertainMs)
  const what = `This machine's clock is ${(off / 1_000).toFixed(1)} s ${skewMs > 0 ? 'behind' : 'ahead of'} the database's`
  const remedy = 'Keep both clocks by NTP (timedatectl set-ntp true): signatures and log times come from this one'
  if (off >= SKEW_FAULT_MS) return [fault('clock', what, remedy)]
  return off >= SKEW_WARNING_MS ? [warning('clock', what, remedy)] : [ok('clock', 'The clocks agree')]
}

async function rights(db: Database['db']): Promise<Finding[]> {
  const { user, missing } = await missingRights(db)
  if (missing.length === 0) return [ok('rights', `The user ${user} has the rights it needs`)]
  return missing.map(({ right, on }) =>
    right === 'create'
      ? warning(
          'rights',
          `The user ${user} may not create tables in the schema ${on}: a later version cannot migrate`,
          `grant create, usage on schema ${on} to ${user}; or migrate as another user and start with MIGRATE=off`,
        )
      : fault(
          'rights',
          `The user ${user} may not ${right} on ${on}`,
          `grant select, insert, update, delete on all tables in schema public to ${user}`,
        ),
  )
}

/** Whether Postgres cleans up behind the tasks. */
export async function checkCare({ db }: Database): Promise<Finding[]> {
  const tables = await tableCare(db)
  if (tables.some(({ off }) => off === 'server')) {
    return [
      fault('vacuum', 'Autovacuum is off on the server', 'alter system set autovacuum = on; select pg_reload_conf()'),
    ]
  }
  const findings = tables.flatMap(({ table, off, live, dead }) => {
    if (off) {
      const what = `Autovacuum is off for ${table} (${dead} dead rows)`
      return [fault('vacuum', what, `alter table ${table} reset (autovacuum_enabled)`)]
    }
    if (dead < MANY_DEAD_ROWS || dead < live * DEAD_SHARE) return []
    return [
      warning(
        'vacuum',
        `${table} has ${dead} dead rows beside ${live} live ones`,
        `Look for long transactions (pg_stat_activity), then: vacuum ${table}`,
      ),
    ]
  })
  return findings.length > 0 ? findings : [ok('vacuum', 'Dead rows are cleaned up')]
}

/** Whether the key in DATA_DIR opens anything. */
export async function checkAdminKey({ db }: Database, { dataDir }: Settings): Promise<Finding[]> {
  const file = join(dataDir, 'admin.key')
  let key: string
  try {
    key = (await readFile(file, 'utf8')).trim()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    return code === 'ENOENT' ? [] : [warning('admin-key', messageOf(error), 'Run the command as the user of the node')]
  }
  if (await knowsKey(db, idOfKey(key))) return []
  return [
    warning(
      'admin-key',
      `${file} is of another database: it opens nothing here`,
      'longshore keys create me --scope admin, and keep that one',
    ),
  ]
}
