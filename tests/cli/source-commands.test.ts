import { afterAll, beforeAll, expect, test } from 'bun:test'
import { chown, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { type FileServer, servers, startVsftpd } from '../support/ftp-servers.ts'
import { type NodeFolder, type NodeProcess, nodeFolder, startNode } from '../support/node-process.ts'
import { longshore } from './cli.ts'

let home: RemoteHome
let server: FileServer
let folder: NodeFolder
let node: NodeProcess
let url: string
beforeAll(async () => {
  if (noServers !== undefined) return
  home = await remoteHome()
  server = await startVsftpd(home.path)
  folder = await nodeFolder()
  node = await startNode(folder)
  url = await node.listening
}, 30_000)
afterAll(async () => {
  if (noServers !== undefined) return
  await node.stop()
  await folder[Symbol.asyncDispose]()
  await server[Symbol.asyncDispose]()
  await home[Symbol.asyncDispose]()
}, 30_000)

const run = (...args: string[]) => longshore(args, { cwd: folder.path, env: { LONGSHORE_URL: url } })

async function drop(name: string, content: string): Promise<void> {
  const { uid, gid } = servers().user
  await writeFile(join(server.folder, name), content)
  await chown(join(server.folder, name), uid, gid)
}

test.skipIf(noServers !== undefined)(
  'a source is made, tested, polled and deleted, and its files are followed',
  async () => {
    const { host, port, auth } = server.connection
    const password = auth.kind === 'password' ? auth.password : ''
    await run('queue', 'set', 'rows')
    await node.call('POST', '/consumers', { queue: 'rows', target: { type: 'noop' } })
    const create = (...more: string[]) =>
      longshore(
        [
          ...['source', 'create', 'bank', '-p', 'ftp', '--host', host, '--port', String(port)],
          ...['-u', auth.username, '--password-file', '-', '-d', server.root, '-q', 'rows', ...more],
        ],
        { cwd: folder.path, env: { LONGSHORE_URL: url }, input: `${password}\n` },
      )
    const typed = ['-f', '{"type":"csv","types":{"n":"integer"}}', '--settings', '{"ready":{"kind":"at-once"}}']
    expect(await create('-f', 'xml')).toMatchObject({ code: 1, err: expect.stringContaining('/format/path') })
    const made = await create(...typed)
    expect([made.code, made.err]).toEqual([0, 'Try it: longshore source test bank\n'])
    expect(made.out).toMatch(/^less safe +ftp sends passwords and files in the clear$/m)
    expect((await run('source', 'list')).out).toMatch(/^bank +active +when asked +- +- +ftp:/m)

    expect(await run('source', 'change', 'bank')).toMatchObject({ code: 2, err: expect.stringContaining('Name what') })
    const changed = await run('source', 'change', 'bank', '--records-per-task', '2', '-z', 'Europe/Berlin', '--json')
    expect(changed.json()).toMatchObject({
      timezone: 'Europe/Berlin',
      deliver: { queue: 'rows', recordsPerTask: 2 },
      format: { types: { n: 'integer' } },
    })
    const back = ['--settings', '{"timezone":null}', '--records-per-task', '1']
    expect((await run('source', 'change', 'bank', ...back)).out).not.toContain('Europe/Berlin')

    await drop('numbers.csv', 'n\n1\ntwo\n3\n')
    const tested = await run('source', 'test', 'bank')
    expect(tested.out).toContain('Listed: 1 entry, to be taken:\n  /files/numbers.csv  10 bytes')
    expect(tested.out).toContain('{"n":1}')
    expect(tested.out).toContain('record 2 would be rejected')
    expect((await run('source', 'browse', 'bank')).out).toMatch(/^file +10 .*numbers\.csv$/m)
    expect((await run('source', 'poll', 'bank')).out).toMatch(/1 new, 0 changed, 1 fetched/)

    const watched = await run('files', 'watch', 'bank', '--timeout', '20s')
    expect([watched.code, watched.err]).toEqual([0, ''])
    expect(watched.out).toMatch(/done, 3 records read, 1 rejected, 2 of 2 tasks done\n$/)
    expect((await run('files', 'list', 'bank')).out).toMatch(/done +10 +3 +1 +2 +0 /)
    const path = join(server.root, 'numbers.csv')
    expect((await run('files', 'get', 'bank', path)).out).toMatch(/^records +3 read, 1 rejected$/m)
    expect((await run('files', 'rejects', 'bank', path)).out).toMatch(/^ +2 +3 .*two$/m)
    expect(await run('files', 'rerun', 'bank', path, '--failed')).toMatchObject({
      code: 1,
      err: expect.stringContaining('No task of this file has failed'),
    })
    const again = await run('files', 'rerun', 'bank', path)
    const second = await run('files', 'watch', 'bank', again.out.trim(), '--json', '--timeout', '20s')
    expect(second.json()).toMatchObject({ generation: 2, status: 'done', progress: { recordsRejected: 1 } })
    expect((await run('files', 'cancel', 'bank', path)).code).toBe(1)

    expect((await run('source', 'pause', 'bank')).out).toBe('The source "bank" is paused\n')
    expect((await run('source', 'poll', 'bank')).err).toContain('resume it first')
    expect((await run('source', 'delete', 'bank')).code).toBe(2)
    expect((await run('source', 'delete', 'bank', '--yes')).out).toBe('The source "bank" is deleted\n')
  },
  60_000,
)

test.skipIf(noServers !== undefined)(
  'secrets rotate encrypts with the first key what another one has encrypted',
  async () => {
    await node.call('POST', '/sources', {
      ...{ name: 'old', protocol: 'ftp', host: '127.0.0.1', deliver: { queue: 'rows' } },
      auth: { kind: 'password', username: 'u', password: 'p' },
    })
    expect((await run('secrets', 'rotate', '--json')).json()).toMatchObject({ rotated: 0, failed: [] })
    const LONGSHORE_SECRET_KEY = Buffer.alloc(32, 3).toString('base64')
    const rotated = await longshore(['secrets', 'rotate'], { cwd: folder.path, env: { LONGSHORE_SECRET_KEY } })
    expect(rotated.out).toMatch(/^1 secret encrypted anew with the key "[0-9a-f]{12}"\n$/)
  },
)
