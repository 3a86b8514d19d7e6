import { afterAll, beforeAll, expect, test } from 'bun:test'
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import {
  bareRoot,
  bareRootRefusal,
  openFolder,
  type RootProcess,
  runInRoot,
  startInRoot,
} from '../support/bare-root.ts'
import { builtBinary, layBinary } from '../support/binary.ts'
import { attachNode, type NodeProcess } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { reached, submit } from './installation.ts'

const refusal = bareRootRefusal()
const inBareRoot = test.skipIf(refusal !== undefined)
/** Time and memory are measured by `check:binary` and told there; the size is the same wherever it is built. */
const MOST_BYTES = 150e6

let binary = ''
let layers: string[] = []
let scratch = ''

beforeAll(() => {
  binary = builtBinary()
  if (refusal !== undefined) return
  scratch = openFolder('/var/tmp/longshore-binary-')
  const layer = layBinary(join(scratch, 'program'), binary)
  mkdirSync(join(layer, 'srv/work'), { recursive: true })
  layers = [bareRoot(), layer]
}, 600_000)

afterAll(() => {
  if (scratch !== '') rmSync(scratch, { recursive: true, force: true })
})

/** `longshore start` in the folder /srv/work of a bare Debian, which is `folder` here. */
function start(folder: string, env: Record<string, string> = {}): { node: NodeProcess; root: RootProcess } {
  const root = startInRoot({
    layers,
    volumes: { '/srv/work': folder },
    cwd: '/srv/work',
    env: { PORT: '0', ...env },
    command: ['longshore', 'start'],
  })
  const node = attachNode(root.child, {
    dataDir: join(folder, 'data'),
    handlersDir: join(folder, 'handlers'),
    signal: root.signal,
  })
  return { node, root }
}

test('the binary is at most 150 MB', () => {
  expect(Bun.file(binary).size).toBeLessThan(MOST_BYTES)
})

test('the binary tells its version and its commit', () => {
  const { stdout, exitCode } = Bun.spawnSync([binary, '--version'])
  expect(stdout.toString()).toMatch(/^\d+\.\d+\.\d+ \(([0-9a-f]{12}\+?|unknown)\)\n$/)
  expect(exitCode).toBe(0)
})

inBareRoot('the bare Debian holds no Bun, no Node and no certificates', () => {
  const command = ['sh', '-c', 'command -v bun node npm deno; ls /etc/ssl/certs 2>/dev/null; true']
  expect(runInRoot({ layers, command })).toBe('')
})

inBareRoot(
  'in an empty folder of a bare Debian the binary starts, works on threads, shows its page, stops in order, and starts warm',
  async () => {
    await using sink = await startSink()
    const folder = openFolder(join(scratch, 'work-'))
    const { node, root } = start(folder)
    try {
      const url = await node.listening
      const isReady = async () =>
        ((await (await fetch(`${url}/health/ready`)).json()) as { status: string }).status === 'ready'
      await until(isReady, { what: 'the node to be ready' })
      expect(node.logged('migrated').length).toBeGreaterThan(0)

      mkdirSync(node.handlersDir)
      writeFileSync(
        join(node.handlersDir, 'double.ts'),
        `import { isMainThread } from 'node:worker_threads'
       export default async (payload: { n: number }) => ({ twice: payload.n * 2, isMainThread })`,
      )
      const ids = {
        http: await submit(node, { payload: { n: 1 }, target: { type: 'http', url: sink.url('/hook') } }),
        handler: await submit(node, { payload: { n: 21 }, target: { type: 'handler', name: 'double' } }),
        noop: await submit(node, { payload: null, target: { type: 'noop' } }),
      }
      expect(await reached(node, ids.http)).toMatchObject({ status: 'succeeded', attempt: 1 })
      expect(sink.requests).toMatchObject([{ path: '/hook', body: '{"n":1}', task: ids.http }])
      expect(await reached(node, ids.handler)).toMatchObject({
        status: 'succeeded',
        result: { twice: 42, isMainThread: false },
      })
      expect(await reached(node, ids.noop)).toMatchObject({ status: 'succeeded' })

      const page = await fetch(`${url}/docs`, { headers: node.headers() })
      const files = [...(await page.text()).matchAll(/(?:href|src)="(\/docs\/[^"]+)"/g)].map(([, path]) => path)
      expect(files).toHaveLength(3)
      for (const file of files) expect((await fetch(`${url}${file}`, { headers: node.headers() })).status).toBe(200)
      expect((await fetch(`${url}/openapi.json`, { headers: node.headers() })).status).toBe(200)

      await node.stop()
      expect(root.initPid()).toBeUndefined()

      await warmStart(folder, ids.http)
    } finally {
      await root.end()
    }
  },
  150_000,
)

/** Starts on a folder that has been used, finds `task` there, and stops. */
async function warmStart(folder: string, task: string): Promise<void> {
  const { node, root } = start(folder)
  try {
    await node.listening
    expect(await reached(node, task)).toMatchObject({ status: 'succeeded' })
    await node.stop()
  } finally {
    await root.end()
  }
}

inBareRoot(
  'SIGTERM in the middle of a task ends the binary at its deadline with code 0',
  async () => {
    await using sink = await startSink({ reply: () => 'hang' })
    const folder = openFolder(join(scratch, 'work-'))
    const { node, root } = start(folder, { SHUTDOWN_TIMEOUT: '1s' })
    try {
      await node.listening
      await submit(node, { payload: 1, target: { type: 'http', url: sink.url() } })
      await until(() => sink.requests.length === 1, { what: 'the request at the sink', timeoutMs: 30_000 })
      const asked = performance.now()
      await node.stop()
      const tookMs = performance.now() - asked
      expect(tookMs).toBeGreaterThan(900)
      // Without its deadline it would wait for 25 s.
      expect(tookMs).toBeLessThan(24_000)
    } finally {
      await root.end()
    }
  },
  150_000,
)

inBareRoot(
  'after a kill -9 of everything the binary starts again, also from half-unpacked programs',
  async () => {
    await using sink = await startSink()
    const folder = openFolder(join(scratch, 'work-'))
    const first = start(folder)
    // Somewhere between the first file of the programs and the last one.
    await until(() => listed(join(folder, 'data/postgres')).some((name) => name.endsWith('.draft')), {
      what: 'the programs being unpacked',
      timeoutMs: 30_000,
    })
    await first.root.end()
    for (let round = 1; round <= 3; round++) {
      const { node, root } = start(folder)
      try {
        await node.listening
        const id = await submit(node, { payload: round, target: { type: 'http', url: sink.url() } })
        await reached(node, id, ['succeeded'])
      } finally {
        // Process 1 and with it the whole pid namespace, as a container engine kills.
        await root.end()
      }
    }
    expect(listed(join(folder, 'data/postgres')).filter((name) => name.startsWith('programs-'))).toHaveLength(1)
  },
  150_000,
)

/** The names in a folder; none while it is not there. */
function listed(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : []
}

test('it is built for linux-arm64 as well: an ELF program for AArch64 with Postgres for that processor inside', async () => {
  const arm = builtBinary('--target', 'linux-arm64')
  const header = new DataView(await Bun.file(arm).slice(0, 20).arrayBuffer())
  expect(header.getUint32(0)).toBe(0x7f454c46)
  // e_machine 183 is EM_AARCH64 (ELF for the Arm 64-bit Architecture).
  expect(header.getUint16(18, true)).toBe(183)
  expect(Bun.file(arm).size).toBeLessThan(MOST_BYTES)
  const postgres = Bun.file(join(dirname(arm), 'linux-arm64/packages/node_modules/postgres/native/bin/postgres'))
  expect(new DataView(await postgres.slice(0, 20).arrayBuffer()).getUint16(18, true)).toBe(183)
}, 150_000)
