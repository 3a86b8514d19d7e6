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
import { testVhost } from '../support/rabbitmq.ts'
import { startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { workKey } from '../support/worker-process.ts'
import { reached, submit } from './installation.ts'
import { expectOld } from './old-client.ts'

/*
 * There is no container engine here. The Dockerfile's steps are carried out in chroots on layers of overlayfs, and what comes out
 * is run as an engine would run it: read-only root, its user, its environment, process 1 of a pid namespace.
 */

const ROOT = join(import.meta.dir, '../..')
const refusal = bareRootRefusal()
const inContainer = test.skipIf(refusal !== undefined)
const stages = parseDockerfile(readFileSync(join(ROOT, 'Dockerfile'), 'utf8'))

interface Service {
  command?: string[]
  environment: Record<string, string>
  read_only?: boolean
  volumes: string[]
  networks: string[]
  image: string
}
const compose = Bun.YAML.parse(readFileSync(join(ROOT, 'compose.yaml'), 'utf8')) as {
  services: { longshore: Service; worker: Service; postgres: Service }
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
}, 600_000)

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
const run = (volume: string, env: Record<string, string>) => runWith({ '/data': volume }, env, image.cmd)

function runWith(volumes: Record<string, string>, env: Record<string, string>, command: string[]): Container {
  const volume = volumes['/data'] ?? ''
  const settings: Command = {
    layers: image.layers,
    volumes,
    cwd: image.cwd,
    ...(image.user ? { user: image.user } : {}),
    env: { ...image.env, HOST: '127.0.0.1', PORT: '0', ...env },
    command: [...image.entrypoint, ...command],
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
      await until(() => health(port) === 0, { what: 'the container to be healthy' })
      expect(root.initPid()).toBeGreaterThan(1)
      const delivered = await submit(node, { payload: 1, target: { type: 'http', url: sink.url() } })
      expect(await reached(node, delivered)).toMatchObject({ status: 'succeeded' })
      const asked = await submit(node, { payload: null, target: { type: 'handler', name: 'whoami' } })
      expect(await reached(node, asked)).toMatchObject({ status: 'succeeded', result: image.user?.uid })
      // Not "not ready" (1): nobody is there.
      expect(health('1')).toBe(3)

      root.signal(image.stopSignal)
      expect(await node.exited).toBe(0)
      // What it said last may be read after its end.
      await until(() => node.logged('stopped').length === 1, { what: 'its last words' })
    } finally {
      await root.end()
    }
  },
  180_000,
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
  180_000,
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

/** `docker compose run` of a service: `places` has the folder of each volume, and `given` stands for what leads to other services. */
function runService(
  service: Service,
  places: Record<string, string>,
  variables: Record<string, string>,
  given: Record<string, string>,
): Container {
  expect(service.read_only).toBe(true)
  const volumes = service.volumes.map((volume): [string, string] => {
    const [name = '', inside = ''] = volume.split(':')
    return [inside, places[name] ?? '']
  })
  const environment = Object.entries(service.environment).map(([name, text]): [string, string] => [
    name,
    given[name] ??
      text.replaceAll(/\$\{(\w+):-([^}]*)\}/g, (_, variable, otherwise) => variables[variable] || otherwise),
  ])
  return runWith(Object.fromEntries(volumes), Object.fromEntries(environment), service.command ?? image.cmd)
}

inContainer(
  'as compose.yaml has them, a node and two workers without a database run targets of every kind',
  async () => {
    const { longshore, worker } = compose.services
    expect(worker.networks).not.toContain('ledger')
    expect(worker.environment).not.toHaveProperty('DATABASE_URL')
    const database = await testDatabase('server', { poolSize: 1 })
    const vhost = await testVhost()
    const places = {
      data: volumeFor(image),
      out: volumeFor(image),
      './handlers': openFolder(join(scratch, 'handlers-')),
    }
    writeFileSync(join(places['./handlers'], 'whoami.ts'), 'export default () => process.getuid?.()')
    const containers: Container[] = []
    const start = async (...service: Parameters<typeof runService>) => {
      const container = runService(...service)
      containers.push(container)
      await container.node.listening
      return container
    }
    try {
      const DATABASE_URL = 'url' in database.connection ? database.connection.url : ''
      const AMQP_URL = vhost.amqpUrl
      const secret = { LONGSHORE_SECRET_KEY: Buffer.alloc(32, 7).toString('base64') }
      const { node, health } = await start(longshore, places, secret, {
        DATABASE_URL,
        AMQP_URL,
        RABBITMQ_MANAGEMENT_URL: '',
      })
      const LONGSHORE_URL = await node.listening
      await until(() => health(new URL(LONGSHORE_URL).port) === 0, { what: 'the container to be healthy' })
      const workers = { LONGSHORE_WORKER_KEY: await workKey(node) }
      for (let n = 0; n < 2; n++) await start(worker, places, workers, { LONGSHORE_URL, AMQP_URL })

      const asked = await submit(node, { payload: null, target: { type: 'handler', name: 'whoami' } })
      expect(await reached(node, asked)).toMatchObject({ status: 'succeeded', result: image.user?.uid })

      const jobs: string[] = []
      for (let n = 1; n <= 20; n++) {
        jobs.push((await expectOld(node, 201, 'POST', '/api/jobs', { json: { type: 'report', payload: n } })).id)
      }
      for (const id of jobs) expect(await reached(node, id)).toMatchObject({ status: 'succeeded' })
      const { rows } = await database.database.pool.query<{ id: string }>('select id from data.jobs_done order by id')
      expect(rows.map(({ id }) => id)).toEqual(jobs)
      const [head, ...lines] = readFileSync(join(places.out, 'out/job_status.csv'), 'utf8').trimEnd().split('\r\n')
      expect(head).toBe('id,type,payload')
      expect(lines.map((line) => line.split(',')[0] ?? '').sort()).toEqual(jobs)

      const auth = { kind: 'password', username: 'ada', password: 'correct horse' }
      const deliver = { queue: 'default' }
      await node.call('POST', '/sources', { name: 'bank', protocol: 'sftp', host: 'bank.invalid', auth, deliver })

      expect([...new Bun.Glob('**').scanSync({ cwd: places.data, onlyFiles: false })]).toEqual(['admin.key'])
      for (const { node, root } of containers.toReversed()) {
        root.signal('SIGTERM')
        await until(() => root.initPid() === undefined, { what: 'the end of the container', timeoutMs: 40_000 })
        expect(await node.exited).toBe(0)
      }
    } finally {
      for (const { root } of containers) await root.end()
      await vhost.remove()
      await database.drop()
    }
  },
  300_000,
)
