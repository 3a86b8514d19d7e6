import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chown, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, type RemoteHome } from '../../files/remote-home.ts'
import { type FileServer, servers, startVsftpd } from '../../support/ftp-servers.ts'
import { startSshd } from '../../support/sshd.ts'
import { type ServerUnderTest, type SourcesUnderTest, serverUnderTest } from '../sources-under-test.ts'

const KINDS: [string, (home: RemoteHome) => Promise<FileServer>][] = [
  ['FTP', (home) => startVsftpd(home.path)],
  ['SFTP', (home) => startSshd(home.path)],
]
const CSV = 'id,amount\n1,10.50\n2,20.00\n'

describe.skipIf(noServers !== undefined).each(KINDS)(
  'a node that is killed in the middle of a hand-off (%s)',
  (_, start) => {
    let place: ServerUnderTest
    let server: FileServer
    let under: SourcesUnderTest
    beforeAll(async () => {
      place = await serverUnderTest(start)
      ;({ server, under } = place)
    })
    afterAll(() => place[Symbol.asyncDispose]())

    /** Runs a visit in a process of its own that is killed at the step; then the node counts as dead. */
    async function killAt(source: { id: string }, step: string, what = 'poll', coming = 1): Promise<number | string> {
      const { url } = under.ledger.test.connection as { url: string }
      const args = [
        join(import.meta.dir, 'polling-process.ts'),
        url,
        under.spoolDir,
        source.id,
        step,
        String(coming),
        what,
      ]
      const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'inherit'] })
      const end = await new Promise<number | string>((resolve) =>
        child.once('exit', (code, signal) => resolve(code ?? signal ?? 'unknown')),
      )
      await under.pool.query(`update nodes set dead_at = now() where name = 'polling' and dead_at is null`)
      return end
    }

    async function aFile(name: string, over: Parameters<SourcesUnderTest['create']>[1] = {}) {
      const path = join(server.folder, name)
      await mkdir(path)
      await chown(path, servers().user.uid, servers().user.gid)
      await writeFile(join(path, 'a.csv'), CSV)
      const directory = `${server.root === '/' ? '' : server.root}/${name}`
      return { path, source: await under.create(server, { directory, ready: { kind: 'at-once' }, ...over }) }
    }

    const importsOf = async (source: { id: string }) =>
      (await under.imports()).filter(({ payload }) => payload.sourceId === source.id)

    test.each(['begun', 'fetched', 'handed-off'])('at "%s" leaves one import of the whole file', async (step) => {
      const { source } = await aFile(`step-${step}`)
      expect(await killAt(source, step)).toBe('SIGKILL')
      const before = await importsOf(source)
      expect(before).toHaveLength(step === 'handed-off' ? 1 : 0)
      for (let again = 0; again < 2; again++) await under.poll(source)
      const imports = await importsOf(source)
      expect(imports).toHaveLength(1)
      const [file] = await under.files(source)
      expect(file).toMatchObject({ status: 'importing', generation: 1, task: imports[0]?.id as string })
      expect(file?.sha256).toBe(createHash('sha256').update(CSV).digest('hex'))
      expect(await readFile(under.spool.pathOf(file?.spool ?? ''), 'utf8')).toBe(CSV)
      // What the killed one had fetched in vain is swept, and what is needed is not.
      await under.spool.sweep(async (names) => new Set(names.filter((name) => name === file?.spool)), 0)
      expect(await readdir(under.spoolDir)).toContain(file?.spool as string)
    })

    test('once its file is moved, before that is noted, finds that it was moved', async () => {
      const { path, source } = await aFile('moved', { after: { kind: 'move', to: 'done' } })
      await under.poll(source)
      const [file] = await under.files(source)
      if (!file) throw new Error('There is no file')
      await under.imported(file)
      expect(await killAt(source, 'after-done', 'after')).toBe('SIGKILL')
      expect(await readdir(path)).toEqual(['done'])
      expect((await under.files(source))[0]).toMatchObject({ after: 'pending', location: null })
      await under.allDue()
      await under.poll(source)
      expect(await under.files(source)).toMatchObject([
        { status: 'done', after: 'done', location: expect.stringMatching(/done\/a\.csv$/), after_error: null },
      ])
      expect(await importsOf(source)).toHaveLength(1)
    })

    test('once its file is deleted, before that is noted, finds that it was deleted', async () => {
      const { path, source } = await aFile('deleted', { after: { kind: 'delete' } })
      await under.poll(source)
      const [file] = await under.files(source)
      if (!file) throw new Error('There is no file')
      await under.imported(file)
      expect(await killAt(source, 'after-done', 'after')).toBe('SIGKILL')
      expect(await readdir(path)).toEqual([])
      await under.allDue()
      await under.poll(source)
      expect(await under.files(source)).toMatchObject([{ status: 'done', after: 'done' }])
    })

    test('again and again, with four connections and forty files, leaves one import of each', async () => {
      const { path, source } = await aFile('many', { connections: 4 })
      for (let file = 0; file < 39; file++) await writeFile(join(path, `file-${file}.csv`), `id\n${file}\n`)
      for (let round = 0; round < 6; round++) {
        const step = ['begun', 'fetched', 'handed-off'][round % 3] as string
        expect(await killAt(source, step, 'poll', 3 + round)).toBe('SIGKILL')
      }
      expect(await under.poll(source)).toMatchObject({ left: 0, incomplete: 0, error: null })
      const files = await under.files(source)
      const imports = await importsOf(source)
      expect(files).toHaveLength(40)
      expect(imports).toHaveLength(40)
      expect(new Set(imports.map(({ payload }) => payload.fileId))).toEqual(new Set(files.map(({ id }) => id)))
      for (const { spool, size } of files) expect(await under.spool.has(spool ?? '', size)).toBe(true)
    }, 60_000)
  },
)
