import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { realClock } from '../../src/runtime/clock.ts'
import { createSecretBox, type SecretBox } from '../../src/runtime/secret-box.ts'
import { createPoller, type Poller, type PollerDeps } from '../../src/sources/poller.ts'
import { createSources, type Sources } from '../../src/sources/sources.ts'
import { createSpool, type Spool } from '../../src/sources/spool.ts'
import { visitSource } from '../../src/sources/visit/visit.ts'
import { type Database, openDatabase } from '../../src/store/database/database.ts'
import { markSilentNodes } from '../../src/store/nodes.ts'
import { sourceById } from '../../src/store/sources/read.ts'
import { addressingFor } from '../../src/submit/addressing.ts'
import type { SourceAuth, SourceBody } from '../../src/task/source/source.ts'
import type { PollReport, Source } from '../../src/task/source/state.ts'
import { openGuard, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import type { FileServer } from '../support/ftp-servers.ts'
import { silent } from '../support/services.ts'
import { type TaskLedger, taskLedger } from '../support/tasks.ts'

export const RECORDS = 'records'

/** A file's row, as far as tests look at it. */
export interface FileRow {
  id: string
  path: string
  generation: number
  status: string
  size: number | null
  sha256: string | null
  spool: string | null
  spool_node: string | null
  task: string | null
  after: string | null
  after_error: string | null
  location: string | null
  duplicate_of: string | null
  failures: number
  error: string | null
}

/** Sources on a database of their own, and one node that visits them when the test says so. */
export interface SourcesUnderTest extends AsyncDisposable {
  ledger: TaskLedger
  pool: Database['pool']
  sources: Sources
  spool: Spool
  spoolDir: string
  box: SecretBox
  deps: PollerDeps
  /** A source with this server. */
  create(server: Pick<FileServer, 'connection' | 'root'>, over?: Partial<SourceBody>): Promise<Source>
  /**
   * Visits it a day after the visit before, as far as its files can tell, or at once after it; with a listing unless `poll` is
   * false. Gives what the last poll came to.
   */
  poll(source: Pick<Source, 'id'>, over?: Partial<PollerDeps> & { poll?: boolean; atOnce?: true }): Promise<PollReport>
  /** Polls twice: what is there is then known to be complete, and fetched. */
  pollTwice(source: Pick<Source, 'id'>): Promise<PollReport>
  read(source: Pick<Source, 'id'>): Promise<Source>
  files(source: Pick<Source, 'id'>): Promise<FileRow[]>
  /** Imports that wait, oldest first. */
  imports(): Promise<{ id: string; queue: string; payload: Record<string, unknown> }[]>
  /** Marks the file's import as ended, as far as the file is concerned. */
  imported(file: FileRow): Promise<void>
  /** Makes waits of files be over. */
  allDue(): Promise<void>
  /** A poller of another node on connections of its own; not started. */
  otherNode(): Promise<{ deps: PollerDeps; poller: Poller; node: string; database: Database; die(): Promise<void> }>
}

export async function sourcesUnderTest(): Promise<SourcesUnderTest> {
  const ledger = await taskLedger('server')
  const { pool } = ledger
  await ledger.queue(RECORDS)
  const dir = await mkdtemp(join(tmpdir(), 'longshore-sources-'))
  const spool = createSpool(join(dir, 'spool'))
  const box = createSecretBox([Buffer.alloc(32, 7)])
  const others: Database[] = []
  const deps: PollerDeps = {
    pool,
    clock: realClock,
    log: silent,
    guard: openGuard,
    box,
    spool,
    node: () => ledger.node,
    announce: () => Promise.reject(new Error('Nothing is announced here')),
    addressing: addressingFor('in-process'),
    onFetched() {},
    mayStart: () => true,
  }
  const sources = createSources({
    pool,
    box,
    checkHost: openGuard.checkHost,
    onChanged() {},
    onTopology() {},
  })
  let made = 0

  const under: SourcesUnderTest = {
    ledger,
    pool,
    sources,
    spool,
    spoolDir: join(dir, 'spool'),
    box,
    deps,
    create({ connection, root }, over = {}) {
      made++
      const { protocol, host, port, auth, tls } = connection
      const isTls = protocol.startsWith('ftps')
      return sources.create({
        name: `source-${made}`,
        protocol,
        host,
        port,
        auth: auth as SourceAuth,
        ...(isTls && { tls: { ...(tls.ca !== undefined && { ca: tls.ca }) } }),
        directory: root,
        deliver: { queue: RECORDS },
        ...over,
      })
    },
    async poll({ id }, { poll = true, atOnce = false, ...over } = {}) {
      if (!atOnce) await pool.query(A_DAY_LATER, [id])
      const source = await sourceById(pool, id)
      if (!source) throw new Error(`There is no source ${id}`)
      await visitSource({ source, poll }, { ...deps, ...over }, new AbortController().signal)
      const after = await under.read({ id })
      if (!after.poll) throw new Error('It was not polled')
      return after.poll
    },
    async pollTwice(source) {
      await under.poll(source)
      return under.poll(source)
    },
    async read({ id }) {
      const source = await sourceById(pool, id)
      if (!source) throw new Error(`There is no source ${id}`)
      return source
    },
    async files({ id }) {
      const { rows } = await pool.query<FileRow>('select * from files where source = $1 order by path, generation', [
        id,
      ])
      return rows
    },
    async imports() {
      const { rows } = await pool.query<{ id: string; queue: string; payload: string }>(
        `select id, queue, payload from tasks where queue like 'ftp.%' order by id`,
      )
      return rows.map((row) => ({ ...row, payload: JSON.parse(row.payload) as Record<string, unknown> }))
    },
    async imported({ id }) {
      await pool.query(
        `update files f set status = 'done', imported_at = now(),
           after = case when coalesce(s.settings #>> '{after,kind}', 'none') <> 'none' then 'pending' end, after_at = now()
         from sources s where s.id = f.source and f.id = $1`,
        [id],
      )
    },
    async allDue() {
      await pool.query('update files set retry_at = now(), after_at = case when after_at is not null then now() end')
    },
    async otherNode() {
      const database = openDatabase({ connection: ledger.test.connection, poolSize: 5, log: silent as never })
      others.push(database)
      const node = await ledger.join()
      const theirs = { ...deps, pool: database.pool, node: () => node, spool: createSpool(join(dir, `spool-${node}`)) }
      return {
        deps: theirs,
        poller: createPoller(theirs),
        node,
        database,
        async die() {
          await pool.query(`update nodes set beat_at = now() - interval '1 hour' where id = $1`, [node])
          await pool.query(`update nodes set beat_at = now(), steady_since = now() - interval '1 hour' where id = $1`, [
            ledger.node,
          ])
          await markSilentNodes(pool, ledger.node, 15_000)
        },
      }
    },
    async [Symbol.asyncDispose]() {
      for (const database of others) await database.close()
      await ledger.test.drop()
      await rm(dir, { recursive: true, force: true })
    },
  }
  return under
}

const A_DAY_LATER = `
  update files set stable_at = stable_at - interval '1 day', unsure_until = unsure_until - interval '1 day' where source = $1`

export interface ServerUnderTest extends AsyncDisposable {
  server: FileServer
  under: SourcesUnderTest
}

/** A file server, and a ledger for sources on it. */
export async function serverUnderTest(start: (home: RemoteHome) => Promise<FileServer>): Promise<ServerUnderTest> {
  const home = await remoteHome()
  const server = await start(home)
  const under = await sourcesUnderTest()
  return {
    server,
    under,
    async [Symbol.asyncDispose]() {
      await under[Symbol.asyncDispose]()
      await server[Symbol.asyncDispose]()
      await home[Symbol.asyncDispose]()
    },
  }
}
