/**
 * Builds the single binary, measures it in an empty folder (size, first start, warm start, memory when idle) beside the goals,
 * and lets it do a task against the server engine, in a database of its own. tests/e2e/binary.test.ts looks closer.
 */
import pg from 'pg'
import { residentMb } from '../tests/support/binary.ts'
import { type NodeProcess, nodeFolder, spawnNode } from '../tests/support/node-process.ts'
import { until } from '../tests/support/until.ts'
import { build } from './build.ts'
import { serverEngine } from './server-engine.ts'

const GOALS = { size: 150, first: 1_500, warm: 300, resident: 130 }
const WARM_STARTS = 3

const { path, size } = await build()
const engine = await serverEngine()
if (engine.url === undefined) throw new Error(`The binary cannot be tried: ${engine.reason}`)

await using folder = await nodeFolder()
const first = await visit({}, doTask)
const warm = [] as number[]
let resident = 0
for (let round = 0; round < WARM_STARTS; round++) {
  const { readyMs } = await visit({}, async (node) => {
    resident = await residentMb(node.pid)
  })
  warm.push(readyMs)
}
const database = `longshore_binary_${process.pid}`
await inServer(engine.url, `create database ${database}`)
try {
  const url = new URL(engine.url)
  url.pathname = database
  await visit({ DATABASE_URL: url.href, DATA_DIR: `${folder.path}/with-server` }, doTask)
} finally {
  await inServer(engine.url, `drop database if exists ${database} with (force)`)
}

const figures: [what: string, is: number, goal: number, unit: string][] = [
  ['size', size / 1e6, GOALS.size, 'MB'],
  ['first start until ready, embedded Postgres', first.readyMs, GOALS.first, 'ms'],
  [`warm start, best of ${WARM_STARTS}`, Math.min(...warm), GOALS.warm, 'ms'],
  ['resident when idle', resident, GOALS.resident, 'MB'],
]
for (const [what, is, goal, unit] of figures) {
  console.log(`${what}: ${Math.round(is)} ${unit} (goal: ${goal} ${unit}${is > goal ? ', MISSED' : ''})`)
}
console.log('The binary works, with its own Postgres and with a server, and stops with code 0')
// Times are told, not judged: a busy machine is slow. The size does not depend on it.
if (size / 1e6 > GOALS.size) process.exitCode = 1

/** Starts the binary, waits until it is ready, does something with it, and stops it in order. */
async function visit(
  env: Record<string, string>,
  doIt: (node: NodeProcess) => Promise<void>,
): Promise<{ readyMs: number }> {
  const startedAt = performance.now()
  const node = spawnNode(folder, { env, command: [path] })
  const url = await node.listening
  await until(() => fetch(`${url}/health/ready`).then((ready) => ready.ok), { what: 'the binary to be ready' })
  const readyMs = performance.now() - startedAt
  await doIt(node)
  await node.stop()
  return { readyMs }
}

async function doTask(node: NodeProcess): Promise<void> {
  const { id } = await node.call<{ id: string }>('POST', '/tasks', { payload: { n: 1 }, target: { type: 'noop' } })
  const isDone = async () => (await node.call<{ status: string }>('GET', `/tasks/${id}`)).status === 'succeeded'
  await until(isDone, { what: `task ${id} to succeed` })
}

async function inServer(url: string, sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    await client.query(sql)
  } finally {
    await client.end()
  }
}
