import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { v7 } from 'uuid'
import { createAnswers } from '../../../src/execution/answers.ts'
import { createThreadPool } from '../../../src/execution/threads/pool.ts'
import { realClock } from '../../../src/runtime/clock.ts'
import { createImports, type ImportsDeps } from '../../../src/sources/import/imports.ts'
import { createSpool, type Spool } from '../../../src/sources/spool.ts'
import { hold } from '../../../src/store/database/locks.ts'
import { inTransaction } from '../../../src/store/database/statement.ts'
import { handOff } from '../../../src/store/files/hand-off.ts'
import { insertSource } from '../../../src/store/sources/change.ts'
import { ensureImportTopology, ensureQueue } from '../../../src/store/topology/import-topology.ts'
import { addressingFor } from '../../../src/submit/addressing.ts'
import type { Report } from '../../../src/task/executor.ts'
import type { Outcome } from '../../../src/task/outcome.ts'
import type { ImportLedger } from '../../../src/task/source/import.ts'
import type { SourceSettings } from '../../../src/task/source/source.ts'
import type { ClaimedTask } from '../../../src/task/task.ts'
import { silent, threadSettings } from '../../execution/executor.conformance.ts'
import { THREAD } from '../../execution/pool-under-test.ts'
import { newTask, type TaskLedger } from '../../support/tasks.ts'

export const IMPORT_QUEUE = 'ftp.csv'
export const RECORDS = 'records'

export interface StoredFile {
  status: string
  error: string | null
  records_read: number
  records_rejected: number
  bytes_read: number
  spool: string
  after: string | null
  task: string
}

/** Files in a spool, and the node that imports them in real threads. */
export interface ImportUnderTest extends AsyncDisposable {
  dir: string
  spool: Spool
  reports: Report[]
  /** Puts a file into the ledger's hands as a poll does; gives its id and its import's. */
  file(
    name: string,
    content: string | Uint8Array | AsyncIterable<Uint8Array>,
    settings?: Partial<SourceSettings>,
  ): Promise<{ file: string; task: string }>
  /** Claims the import and runs one attempt of it to its settled end. */
  run(task: string): Promise<Outcome>
  claim(task: string): Promise<ClaimedTask>
  execute(task: ClaimedTask): Promise<Outcome>
  cancel(task: string): void
  row(file: string): Promise<StoredFile>
  /** The payloads of its records' tasks, in their order. */
  payloads(task: string): Promise<string[]>
}

export const SETTINGS: SourceSettings = {
  protocol: 'sftp',
  host: 'files.example.com',
  format: { type: 'csv' },
  deliver: { queue: RECORDS },
}

export async function importUnderTest(
  ledger: TaskLedger,
  {
    over = {},
    around = (imports) => imports,
  }: { over?: Partial<ImportsDeps>; around?: (imports: ImportLedger) => ImportLedger } = {},
): Promise<ImportUnderTest> {
  const dir = await mkdtemp(join(tmpdir(), 'longshore-import-'))
  const spool = over.spool ?? createSpool(join(dir, 'spool'))
  const reports: Report[] = []
  const { pool } = ledger
  const imports = around(
    createImports({
      pool,
      clock: realClock,
      log: silent,
      spool,
      node: () => ledger.node,
      fetchAgain: () => Promise.reject(new Error('There is no server')),
      isHopeless: () => false,
      onSubmitted() {},
      onEnded() {},
      ...over,
    }),
  )
  const answers = createAnswers({
    ledger: { hold: async () => true, release: async () => {} },
    clock: realClock,
    log: silent,
    node: () => ledger.node,
    mayStart: () => true,
    publish: async () => 'confirmed',
    imports,
  })
  const threads = createThreadPool({
    threads: 2,
    threadUrl: THREAD,
    workerData: threadSettings(dir),
    clock: realClock,
    log: silent,
    onReport: (batch) => reports.push(...batch),
    answers,
  })
  let sources = 0

  const under: ImportUnderTest = {
    dir,
    spool,
    reports,
    async file(path, content, settings = {}) {
      const source = v7()
      await insertSource(
        pool,
        {
          id: source,
          name: `source-${++sources}-${source}`,
          settings: { ...SETTINGS, ...settings },
          auth: null,
          sealed: null,
          paused: false,
        },
        'never',
      )
      const file = v7()
      await pool.query(`insert into files (id, source, path, status) values ($1, $2, $3, 'fetching')`, [
        file,
        source,
        path,
      ])
      const chunks = typeof content === 'string' || content instanceof Uint8Array ? [Buffer.from(content)] : content
      const spooled = await spool.receive(
        (async function* () {
          yield* chunks
        })(),
      )
      spool.release(spooled.name)
      const lock = `source:${source}`
      await hold(pool, ledger.node, lock)
      const task = newTask({
        queue: IMPORT_QUEUE,
        origin: 'file',
        payload: JSON.stringify({ fileId: file }),
        maxAttempts: null,
      })
      const handed = await handOff(pool, {
        node: ledger.node,
        lock,
        file: {
          id: file,
          source,
          spool: spooled.name,
          sha256: spooled.sha256,
          size: spooled.size,
          exact: null,
          unsure: false,
        },
        task,
        addressing: addressingFor('in-process'),
        duplicates: 'flag',
        after: false,
      })
      if (handed.kind !== 'importing') throw new Error(`Handed off as ${handed.kind}`)
      return { file, task: task.id }
    },
    claim: (task) => ledger.claimOne(task),
    execute: (task) =>
      threads.run({
        id: task.id,
        queue: task.queue,
        type: task.type,
        attempt: task.attempt,
        payload: task.payload,
        target: { type: 'import' },
        timeoutMs: 3_600_000,
        priority: task.priority,
        createdAt: task.createdAt,
        parentId: task.parentId,
        origin: task.origin,
        alone: false,
        affinity: task.id,
      }),
    async run(task) {
      const claimed = await under.claim(task)
      const outcome = await under.execute(claimed)
      await ledger.settle(claimed, outcome)
      return outcome
    },
    cancel: (task) => threads.cancel(task),
    async row(file) {
      const { rows } = await pool.query<StoredFile>('select * from files where id = $1', [file])
      return rows[0] as StoredFile
    },
    async payloads(task) {
      const { rows } = await pool.query<{ payload: string }>(
        'select payload from tasks where parent_id = $1 order by id',
        [task],
      )
      return rows.map(({ payload }) => payload)
    },
    async [Symbol.asyncDispose]() {
      await threads.close()
      await rm(dir, { recursive: true, force: true })
    },
  }
  for (const queue of [IMPORT_QUEUE, RECORDS]) await ensureQueue(pool, queue)
  await inTransaction(pool, (tx) => ensureImportTopology(tx, { imports: false }))
  return under
}

/** A CSV file of `records` rows of about 100 bytes, as a stream. */
export async function* csvRows(records: number, from = 1): AsyncGenerator<Uint8Array> {
  yield Buffer.from('id,client_name,transaction_type,amount,date,status\n')
  let text = ''
  for (let number = from; number < from + records; number++) {
    text += `${number},Client number ${String(number).padStart(12, '0')} and partners,transfer,${number % 1000}.50,2025-01-31,completed ok\n`
    if (text.length < 65_536) continue
    yield Buffer.from(text)
    text = ''
  }
  if (text) yield Buffer.from(text)
}

/** The ids of records, out of the payloads of their tasks. */
export const ids = (payloads: string[]) =>
  payloads.flatMap((payload) => [JSON.parse(payload)].flat().map(({ id }) => Number(id)))

export const upTo = (count: number) => Array.from({ length: count }, (_, index) => index + 1)
