import { afterAll, beforeAll, expect, test } from 'bun:test'
import {
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import {
  bareRoot,
  bareRootRefusal,
  type Command,
  openFolder,
  type RootProcess,
  runInRoot,
  startInRoot,
} from '../support/bare-root.ts'
import { testDatabase } from '../support/database.ts'
import { buildImage, type Image, parseDockerfile } from '../support/dockerfile.ts'
import { attachNode, type NodeProcess } from '../support/node-process.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { reached, submit } from './installation.ts'

/*
 * There is no container engine here. The Dockerfile's steps are carried out in chroots on layers of overlayfs, and what comes out
 * is run as an engine would run it: read-only root, its user, its environment, process 1 of a pid namespace.
 */

const ROOT = join(import.meta.dir, '../..')
const refusal = bareRootRefusal()
const inContainer = test.skipIf(refusal !== undefined)
const stages = parseDockerfile(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'))

interface Service {
  environment: Record<string, string>
  read_only?: boolean
  volumes: string[]
  stop_grace_period?: string
  image: string
}
const compose = Bun.YAML.parse(readFileSync(join(ROOT, 'compose.yaml'), 'utf8')) as {
  services: { longshore: Service; postgres: Service }
}

let scratch = ''
let image: Image

beforeAll(() => {
  if (refusal !== undefined) return
  scratch = openFolder('/var/tmp/longshore-container-')
  // What the image oven/bun adds to Debian: this very program.
  const bun = join(scratch, 'bun')
  mkdirSync(join(bun, 'usr/local/bin'), { recursive: true })
  cpSync(realpathSync(process.execPath), join(bun, 'usr/local/bin/bun'))
  // A machine whose network has certificates of its own tells Bun so by this variable.
  const certificates = process.env.NODE_EXTRA_CA_CERTS
  if (certificates) cpSync(certificates, join(bun, certificates), { dereference: true })
  image = buildImage(stages, {
    context: ROOT,
    bases: { [`oven/bun:${Bun.version}-debian`]: [bareRoot(), bun], 'debian:12.11-slim': [bareRoot()] },
    scratch,
    args: { COMMIT: '0123456789ab' },
    runEnv: certificates ? { NODE_EXTRA_CA_CERTS: certificates } : {},
  })
}, 300_000)

afterAll(() => {
  if (scratch !== '') rmSync(scratch, { recursive: true, force: true })
})

interface Container {
  node: NodeProcess
  root: RootProcess
  /** Runs the image's health check beside it and gives its exit code. */
  health(port: string): number
}

/** `docker run --read-only` of the image with a volume; the network is this machine's. */
function run(volume: string, env: Record<string, string>): Container {
  const settings: Command = {
    layers: image.layers,
    volumes: { '/data': volume },
    cwd: image.cwd,
    ...(image.user ? { user: image.user } : {}),
    env: { ...image.env, HOST: '127.0.0.1', PORT: '0', ...env },
    command: [...image.entrypoint, ...image.cmd],
  }
  const root = startInRoot(settings)
  const node = attachNode(root.child, { dataDir: volume, handlersDir: join(volume, 'handlers'), signal: root.signal })
  return {
    node,
    root,
    health(port) {
      const checked = { ...settings, env: { ...settings.env, PORT: port }, command: image.healthcheck }
      try {
        runInRoot(checked)
        return 0
      } catch (error) {
        return Number(/ended with (\d+)/.exec(String(error))?.[1])
      }
    },
  }
}

/** A new volume as an engine makes it: with the owner and mode that the folder has in the image. */
function volumeFor({ layers, user, volumes }: Image): string {
  const folder = openFolder(join(scratch, 'volume-'))
  const made = layers.map((layer) => join(layer, volumes[0] ?? '')).find((path) => existsSync(path))
  if (made === undefined || user === undefined) throw new Error('The image has no folder for its volume, or no user')
  expect(statSync(made)).toMatchObject({ uid: user.uid, gid: user.gid })
  chownSync(folder, user.uid, user.gid)
  return folder
}

test('every image is pinned, and only what the Dockerfile copies is sent to the engine', () => {
  expect(stages.map((stage) => stage.from)).toEqual([`oven/bun:${Bun.version}-debian`, 'debian:12.11-slim'])
  expect(compose.services.postgres.image).toMatch(/^postgres:\d+\.\d+$/)
  const copied = stages
    .flatMap((stage) => stage.instructions)
    .filter(({ name, text }) => name === 'COPY' && !text.startsWith('--from'))
    .flatMap(({ text }) => text.split(/\s+/).slice(0, -1))
  const ignored = readFileSync(join(ROOT, '.dockerignore'), 'utf8').split('\n').slice(1).filter(Boolean)
  expect(ignored[0]).toBe('*')
  expect(ignored.slice(1).sort()).toEqual(copied.map((path) => `!${path}`).sort())
})

inContainer('the image holds the binary, certificates and time zones, and no Bun', () => {
  const look =
    'longshore --version; ls /etc/ssl/certs/ca-certificates.crt /usr/share/zoneinfo/Europe/Paris; command -v bun; id -un'
  const said = runInRoot({
    layers: image.layers,
    command: ['sh', '-c', look],
    ...(image.user ? { user: image.user } : {}),
  })
  expect(said.split('\n')).toEqual([
    expect.stringMatching(/^\d+\.\d+\.\d+ \(0123456789ab\)$/),
    '/etc/ssl/certs/ca-certificates.crt',
    '/usr/share/zoneinfo/Europe/Paris',
    'longshore',
    '',
  ])
})

inContainer(
  'with a read-only root and without root it starts its own Postgres, works, is healthy, and stops by its signal',
  async () => {
    await using sink = await startSink()
    const volume = volumeFor(image)
    mkdirSync(join(volume, 'handlers'))
    writeFileSync(join(volume, 'handlers/whoami.ts'), 'export default () => process.getuid?.()')
    const { node, root, health } = run(volume, { HANDLERS_DIR: '/data/handlers' })
    try {
      const { port } = new URL(await node.listening)
      expect(health(port)).toBe(0)
      expect(root.initPid()).toBeGreaterThan(1)
      const delivered = await submit(node, { payload: 1, target: { type: 'http', url: sink.url() } })
      expect(await reached(node, delivered)).toMatchObject({ status: 'succeeded' })
      const asked = await submit(node, { payload: null, target: { type: 'handler', name: 'whoami' } })
      expect(await reached(node, asked)).toMatchObject({ status: 'succeeded', result: image.user?.uid })
      // Not "not ready" (1): nobody is there.
      expect(health('1')).toBe(3)

      root.signal(image.stopSignal)
      expect(await node.exited).toBe(0)
      expect(node.logged('stopped')).toHaveLength(1)
    } finally {
      await root.end()
    }
  },
  60_000,
)

inContainer(
  'a container that was killed starts again on its volume, again and again',
  async () => {
    const volume = volumeFor(image)
    const ids: string[] = []
    let thread = ''
    for (let round = 1; round <= 4; round++) {
      // Pids start anew: the dead server's may now be that of a thread of Longshore's.
      for (const name of thread ? ['data/postmaster.pid', 'run/.s.PGSQL.5432.lock'] : []) {
        const file = join(volume, 'postgres', name)
        writeFileSync(file, readFileSync(file, 'utf8').replace(/^\d+/, thread))
      }
      const { node, root } = run(volume, {})
      try {
        await node.listening
        thread = firstThread(root.initPid() ?? 0)
        for (const id of ids) expect(await reached(node, id)).toMatchObject({ status: 'succeeded' })
        const id = await submit(node, { payload: round, target: { type: 'noop' } })
        await reached(node, id, ['succeeded'])
        ids.push(id)
      } finally {
        await root.end()
      }
    }
  },
  60_000,
)

/** The first thread beside the main one, by its id in the innermost pid namespace. */
function firstThread(pid: number): string {
  const second = readdirSync(`/proc/${pid}/task`).sort((a, b) => Number(a) - Number(b))[1]
  const status = readFileSync(`/proc/${pid}/task/${second}/status`, 'utf8')
  return /^NSpid:.*?(\d+)$/m.exec(status)?.[1] ?? ''
}

inContainer('a root that is read-only is read-only', () => {
  const write = () => runInRoot({ layers: image.layers, command: ['touch', '/usr/local/bin/more'] })
  expect(write).toThrow('Read-only file system')
})

inContainer(
  'with a Postgres server, as compose.yaml has it, it keeps nothing but the admin key in its volume',
  async () => {
    const { longshore } = compose.services
    expect(longshore.read_only).toBe(true)
    expect(longshore.volumes).toContain('data:/data')
    const database = await testDatabase('server', { poolSize: 1 })
    const volume = volumeFor(image)
    try {
      const url = 'url' in database.connection ? database.connection.url : ''
      const { node, root, health } = run(volume, { ...longshore.environment, DATABASE_URL: url })
      try {
        const { port } = new URL(await node.listening)
        expect(health(port)).toBe(0)
        const id = await submit(node, { payload: 1, target: { type: 'noop' } })
        expect(await reached(node, id)).toMatchObject({ status: 'succeeded' })
        expect([...new Bun.Glob('**').scanSync({ cwd: volume, onlyFiles: false })]).toEqual(['admin.key'])
        root.signal('SIGTERM')
        await until(() => root.initPid() === undefined, { what: 'the end of the container' })
        expect(await node.exited).toBe(0)
      } finally {
        await root.end()
      }
    } finally {
      await database.drop()
    }
  },
  60_000,
)
