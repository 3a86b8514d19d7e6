/*
 * A node that does nothing but import, for tests that kill it. Arguments: the database's URL and the spool. Says `ready`.
 */
import { v7 } from 'uuid'
import { createAnswers } from '../../../src/execution/answers.ts'
import { createThreadPool } from '../../../src/execution/threads/pool.ts'
import { realClock } from '../../../src/runtime/clock.ts'
import { createImports } from '../../../src/sources/import/imports.ts'
import { createSpool } from '../../../src/sources/spool.ts'
import { openDatabase } from '../../../src/store/database/database.ts'
import { joinNode } from '../../../src/store/nodes.ts'
import { claimDueTasks } from '../../../src/store/tasks/claim/claim.ts'
import { settleTasks } from '../../../src/store/tasks/settle.ts'
import { silent, threadSettings } from '../../execution/executor.conformance.ts'
import { THREAD } from '../../execution/pool-under-test.ts'
import { atOnce, IDLE, settlementOf } from '../../support/tasks.ts'

const queue = 'ftp.csv'
const [url = '', spoolDir = ''] = process.argv.slice(2)
const { pool } = openDatabase({ connection: { url }, poolSize: 6, log: silent })
const node = v7()
await joinNode(pool, {
  id: node,
  name: 'importing',
  version: '0',
  roles: ['worker'],
  broker: 'in-process',
  state: IDLE,
})
const imports = createImports({
  pool,
  clock: realClock,
  log: silent,
  spool: createSpool(spoolDir),
  node: () => node,
  fetchAgain: () => Promise.reject(new Error('There is no server')),
  isHopeless: () => false,
  onSubmitted() {},
  onEnded() {},
})
const answers = createAnswers({
  ledger: { hold: async () => true, release: async () => {} },
  clock: realClock,
  log: silent,
  node: () => node,
  mayStart: () => true,
  publish: async () => 'confirmed',
  imports,
})
const threads = createThreadPool({
  threads: 1,
  threadUrl: THREAD,
  workerData: threadSettings(spoolDir),
  clock: realClock,
  log: silent,
  onReport() {},
  answers,
})
console.log('ready')
for (;;) {
  const [task] = await claimDueTasks(pool, { claimId: v7(), node, queue, limit: 1 })
  if (!task) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    continue
  }
  const { id, type, attempt, payload, priority, createdAt, parentId, origin } = task
  const outcome = await threads.run({
    ...{ id, queue, type, attempt, payload, priority, createdAt, parentId, origin },
    target: { type: 'import' },
    timeoutMs: 3_600_000,
    alone: false,
    affinity: id,
  })
  await settleTasks(pool, node, [settlementOf(task, outcome)], atOnce)
}
