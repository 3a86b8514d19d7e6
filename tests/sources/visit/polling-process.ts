/*
 * A node that visits one source once and is killed when it reaches a step. Arguments: the database's URL, the spool, the
 * source, the step, which coming of it, and `poll` or `after`. Says `visited` when it was not killed.
 */
import { v7 } from 'uuid'
import { realClock } from '../../../src/runtime/clock.ts'
import { createEgress } from '../../../src/runtime/egress/egress.ts'
import { createSecretBox } from '../../../src/runtime/secret-box.ts'
import { createSpool } from '../../../src/sources/spool.ts'
import { visitSource } from '../../../src/sources/visit/visit.ts'
import { openDatabase } from '../../../src/store/database/database.ts'
import { joinNode } from '../../../src/store/nodes.ts'
import { sourceById } from '../../../src/store/sources/read.ts'
import { addressingFor } from '../../../src/submit/addressing.ts'
import { silent } from '../../execution/executor.conformance.ts'
import { IDLE } from '../../support/tasks.ts'

const [url = '', spoolDir = '', id = '', step = '', coming = '1', what = 'poll'] = process.argv.slice(2)
const { pool } = openDatabase({ connection: { url }, poolSize: 4, log: silent })
const node = v7()
await joinNode(pool, {
  id: node,
  name: 'polling',
  version: '0',
  roles: ['scheduler'],
  broker: 'in-process',
  state: IDLE,
})
const source = await sourceById(pool, id)
if (!source) throw new Error(`There is no source ${id}`)
let left = Number(coming)
const deps = {
  pool,
  clock: realClock,
  log: silent,
  guard: createEgress({ allow: [], allowPrivate: true }),
  box: createSecretBox([Buffer.alloc(32, 7)]),
  spool: createSpool(spoolDir),
  node: () => node,
  addressing: addressingFor('in-process'),
  announce: () => Promise.reject(new Error('Nothing is announced here')),
  onFetched() {},
  reached(at: string) {
    if (at === step && --left === 0) process.kill(process.pid, 'SIGKILL')
  },
}
await visitSource({ source, poll: what === 'poll' }, deps, new AbortController().signal)
console.log('visited')
process.exit(0)
