import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import { chown, mkdir, readdir, readFile, rm, symlink, utimes, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { RemoteEntry, RemoteFile } from '../../src/files/remote-files.ts'
import { type FileServer, servers } from '../support/ftp-servers.ts'
import { all, bytesOf, connect, failureOf, noServers, type RemoteHome, remoteHome, visit } from './remote-home.ts'

const TIME = '2026-01-02T03:04:05Z'
const ODD_NAMES = [
  'with spaces.csv',
  ' leading',
  '-rf',
  '"quoted".csv',
  "it's",
  'Grüße aus 東京 🚢.csv',
  'u\u0308mlaut in two parts',
  '[a-z]*.{csv,json}?',
  '100%25 #1;type=file; a',
  '~root',
  '$HOME `id` &',
  'a -> b',
]
/** On the server's disk; how its listing writes them is the server's. */
const HOSTILE_NAMES = ['line\nbreak', 'return\rhere', 'back\\slash', 'bell\u0007']

/** What every adapter promises, against one server. `start` gives it with a certificate that `trusting` can trust. */
export function remoteFilesConformance(
  name: string,
  start: (home: RemoteHome) => Promise<FileServer>,
  trusting: (server: FileServer, home: RemoteHome) => FileServer['connection'] = (server) => server.connection,
): void {
  describe.skipIf(noServers !== undefined)(`remote files by ${name}${noServers ? `: ${noServers}` : ''}`, () => {
    let home: RemoteHome
    let server: FileServer
    const connection = () => trusting(server, home)
    const at = (path: string) => (server.root === '/' ? `/${path}` : `${server.root}/${path}`)
    const onDisk = (...path: string[]) => join(server.folder, ...path)

    async function put(path: string, content: string | Uint8Array = ''): Promise<void> {
      await writeFile(onDisk(path), content)
      await utimes(onDisk(path), new Date(TIME), new Date(TIME))
      await giveToServer(path)
    }
    async function makeFolder(path: string): Promise<void> {
      await mkdir(onDisk(path))
      await giveToServer(path)
    }
    const giveToServer = (path: string) => chown(onDisk(path), servers().user.uid, servers().user.gid)

    beforeAll(async () => {
      home = await remoteHome()
      server = await start(home)
    })
    afterAll(async () => {
      await server?.[Symbol.asyncDispose]()
      await home?.[Symbol.asyncDispose]()
    })
    beforeEach(async () => {
      for (const entry of await readdir(server.folder)) await rm(onDisk(entry), { recursive: true })
    })

    test('the identity tells who answered', async () => {
      const { greeting, tls, hostKey } = await visit(connection(), async (files) => files.identity)
      expect(greeting).toMatch(/^(220|SSH-2)/)
      const { protocol } = server.connection
      const fingerprint = home.certificates.good.fingerprint
      const secure = {
        version: expect.stringMatching(/^TLSv1\.[23]$/),
        fingerprint,
        subject: 'O=Longshore Test, CN=good',
      }
      expect(tls).toEqual(protocol.startsWith('ftps') ? expect.objectContaining(secure) : null)
      const key = { algorithm: expect.any(String), fingerprint: expect.stringMatching(/^SHA256:[\w+/]{43}$/) }
      expect(hostKey).toEqual(protocol === 'sftp' ? key : null)
    })

    test('a listing tells kinds, sizes, and times as the server has them', async () => {
      await put('rows.csv', 'a,b\n')
      await put('empty.csv')
      await makeFolder('inner')
      await put('inner/deeper.csv')
      await symlink('rows.csv', onDisk('link.csv'))
      const entries = usable(await visit(connection(), (files) => all(files.list(server.root))))
      expect(entries.map(({ path, kind }) => [path, kind]).sort()).toEqual([
        [at('empty.csv'), 'file'],
        [at('inner'), 'directory'],
        [at('link.csv'), 'link'],
        [at('rows.csv'), 'file'],
      ])
      const file = entries.find(({ path }) => path === at('rows.csv'))
      expect(file).toMatchObject({ size: 4, rawModifiedAt: expect.any(String) })
      expect([TIME, null]).toContain(file?.modifiedAt as string | null)
    })

    test('times to the second are asked for where a listing does not tell them, and only for the files that are wanted', async () => {
      await put('wanted.csv')
      await put('other.csv')
      const exactTimes = ({ path }: RemoteFile) => path.endsWith('wanted.csv')
      await visit(connection(), async (files) => {
        const [plain, asked] = [
          usable(await all(files.list(server.root))),
          usable(await all(files.list(server.root, { exactTimes }))),
        ]
        const timeOf = (entries: RemoteFile[], name: string) =>
          entries.find(({ path }) => path === at(name))?.modifiedAt
        expect(timeOf(asked, 'wanted.csv')).toBe(TIME)
        expect(timeOf(asked, 'other.csv')).toBe(timeOf(plain, 'other.csv') as string)
      })
    })

    test('two listings of what has not changed are the same', async () => {
      for (const name of ['a', 'b', 'c']) await put(name, name)
      await visit(connection(), async (files) => {
        expect(await all(files.list(server.root))).toEqual(await all(files.list(server.root)))
      })
    })

    test('a recursive listing goes everywhere but through links', async () => {
      await makeFolder('one')
      await makeFolder('one/two')
      await put('one/two/deep.csv')
      await put('top.csv')
      await symlink('..', onDisk('one/loop'))
      const entries = await visit(connection(), (files) => all(files.list(server.root, { recursive: true })))
      expect(
        usable(entries)
          .map(({ path }) => path)
          .sort(),
      ).toEqual(['one', 'one/loop', 'one/two', 'one/two/deep.csv', 'top.csv'].map(at))
    })

    test('a listing with more entries than the limit fails and says so, and the connection goes on', async () => {
      for (let number = 0; number < 5; number++) await put(`${number}.csv`)
      await visit(connection(), async (files) => {
        const failure = await failureOf(all(files.list(server.root, { limit: 4 })))
        expect(failure).toMatchObject({
          layer: 'list',
          reason: 'limit',
          message: expect.stringContaining('more than 4'),
        })
        expect(await all(files.list(server.root, { limit: 5 }))).toHaveLength(5)
      })
    })

    test('an empty directory has no entries; a missing one and a file are told as the directory', async () => {
      await put('file.csv')
      await visit(connection(), async (files) => {
        await makeFolder('nothing')
        expect(await all(files.list(at('nothing')))).toEqual([])
        for (const path of [at('missing'), at('file.csv')]) {
          const failure = await failureOf(all(files.list(path)))
          expect(failure.layer).toBe('directory')
          expect(failure.message).toContain(path)
        }
      })
    })

    test('names with spaces, quotes, patterns and letters of the world are listed, examined, read, moved and deleted', async () => {
      await makeFolder('moved here')
      for (const name of ODD_NAMES) await put(name, name)
      await visit(connection(), async (files) => {
        const listed = usable(await all(files.list(server.root))).filter(({ kind }) => kind === 'file')
        expect(listed.map(({ path }) => path).sort()).toEqual(ODD_NAMES.map(at).sort())
        for (const name of ODD_NAMES) {
          expect((await bytesOf(files.read(at(name)))).toString()).toBe(name)
          expect(await files.stat(at(name))).toMatchObject({ kind: 'file', size: Buffer.byteLength(name) })
          await files.move(at(name), at(`moved here/${name}`))
          await files.remove(at(`moved here/${name}`))
        }
      })
      expect(await readdir(server.folder)).toEqual(['moved here'])
      expect(await readdir(onDisk('moved here'))).toEqual([])
    })

    test('names that could mean something else are shown and never used', async () => {
      for (const name of HOSTILE_NAMES) await put(name)
      await put('good.csv')
      const entries = await visit(connection(), (files) => all(files.list(server.root)))
      for (const { path } of usable(entries)) {
        // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
        expect(path).not.toMatch(/[\u0000-\u001f\\]/)
      }
      expect(usable(entries).map(({ path }) => path)).toContain(at('good.csv'))
      const refused = entries.filter((entry) => entry.kind === 'refused')
      expect(refused).toContainEqual({
        kind: 'refused',
        directory: server.root,
        name: 'back\\\\slash',
        reason: 'its name holds a separator',
      })
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
      for (const { name } of refused) expect(name).not.toMatch(/[\u0000-\u001f]/)
    })

    test('paths with dot-dot, separators or line ends are refused before anything is sent', async () => {
      await put('good.csv', 'good')
      await visit(connection(), async (files) => {
        for (const path of [
          '../x',
          `${at('good.csv')}\r\nDELE ${at('good.csv')}`,
          'a\nb',
          'a\0b',
          'a\\b',
          'x'.repeat(5000),
        ]) {
          const calls = [
            () => all(files.list(path)),
            () => bytesOf(files.read(path)),
            () => files.stat(path),
            () => files.move(path, at('b')),
            () => files.move(at('good.csv'), path),
            () => files.remove(path),
            () => files.makeDirectory(path),
          ]
          for (const call of calls) {
            expect((await failureOf(call())).message).toMatch(/^The path ".*" is not used: /)
          }
        }
        expect((await bytesOf(files.read(at('good.csv')))).toString()).toBe('good')
      })
    })

    test('a file is read byte for byte, from the beginning and from an offset', async () => {
      const content = randomBytes(3_000_001)
      await put('big.bin', content)
      await put('empty.bin')
      await visit(connection(), async (files) => {
        expect((await bytesOf(files.read(at('big.bin')))).equals(content)).toBe(true)
        for (const offset of [1, 1_234_567, content.length - 1, content.length]) {
          const rest = await bytesOf(files.read(at('big.bin'), { offset }))
          expect(rest.equals(content.subarray(offset))).toBe(true)
        }
        expect(await bytesOf(files.read(at('empty.bin')))).toHaveLength(0)
      })
    })

    test('a missing file cannot be read, and the connection goes on', async () => {
      await put('here.csv', 'here')
      await visit(connection(), async (files) => {
        const failure = await failureOf(bytesOf(files.read(at('gone.csv'))))
        expect(failure.layer).toBe('read')
        expect(failure.message).toContain(
          `Cannot read "${at('gone.csv')}" at ${server.connection.protocol}://127.0.0.1:`,
        )
        expect((await bytesOf(files.read(at('here.csv')))).toString()).toBe('here')
      })
    })

    test('a read and a listing that are broken off leave the connection usable', async () => {
      await put('big.bin', randomBytes(20_000_000))
      await put('small.csv', 'small')
      await visit(connection(), async (files) => {
        for (let round = 0; round < 3; round++) {
          for await (const chunk of files.read(at('big.bin'))) {
            expect(chunk.length).toBeGreaterThan(0)
            break
          }
          for await (const _entry of files.list(server.root)) break
          expect((await bytesOf(files.read(at('small.csv')))).toString()).toBe('small')
        }
      })
    })

    test('a file and a directory are examined, and nothing is found where there is nothing', async () => {
      await put('rows.csv', '12345')
      await makeFolder('inner')
      await visit(connection(), async (files) => {
        expect(await files.stat(at('rows.csv'))).toMatchObject({
          kind: 'file',
          path: at('rows.csv'),
          size: 5,
          modifiedAt: TIME,
        })
        expect(await files.stat(at('inner'))).toMatchObject({ kind: 'directory', path: at('inner') })
        expect(await files.stat(at('gone'))).toBeUndefined()
      })
    })

    test('a file is moved, but never onto another', async () => {
      await put('new.csv', 'new')
      await put('old.csv', 'old')
      await makeFolder('done')
      await visit(connection(), async (files) => {
        const failure = await failureOf(files.move(at('new.csv'), at('old.csv')))
        expect(failure).toMatchObject({ layer: 'write', reason: 'exists' })
        await files.move(at('new.csv'), at('done/new.csv'))
        expect((await failureOf(files.move(at('new.csv'), at('done/again.csv')))).layer).toBe('write')
      })
      expect(await readFile(onDisk('old.csv'), 'utf8')).toBe('old')
      expect(await readFile(onDisk('done/new.csv'), 'utf8')).toBe('new')
    })

    test('a file is deleted once', async () => {
      await put('a.csv')
      await visit(connection(), async (files) => {
        await files.remove(at('a.csv'))
        expect((await failureOf(files.remove(at('a.csv')))).layer).toBe('write')
      })
      expect(await readdir(server.folder)).toEqual([])
    })

    test('a directory is made with those above it, and made again without harm', async () => {
      await put('file')
      await visit(connection(), async (files) => {
        await files.makeDirectory(at('one/two three/four'))
        await files.makeDirectory(at('one/two three/four'))
        expect((await failureOf(files.makeDirectory(at('file/below')))).layer).toBe('write')
      })
      expect(await readdir(onDisk('one/two three'))).toEqual(['four'])
    })

    test('what may not be written stays as it is, and the failure says so', async () => {
      await makeFolder('locked')
      await put('locked/rows.csv', 'rows')
      await chown(onDisk('locked'), 0, 0)
      await visit(connection(), async (files) => {
        for (const call of [
          () => files.remove(at('locked/rows.csv')),
          () => files.move(at('locked/rows.csv'), at('rows.csv')),
          () => files.makeDirectory(at('locked/done')),
        ]) {
          expect(await failureOf(call())).toMatchObject({ layer: 'write' })
        }
        expect((await bytesOf(files.read(at('locked/rows.csv')))).toString()).toBe('rows')
      })
      expect(await readdir(onDisk('locked'))).toEqual(['rows.csv'])
    })

    test('an abort ends a read and a listing with its reason', async () => {
      await put('big.bin', randomBytes(20_000_000))
      await put('other.csv')
      const reason = new Error('that is enough')
      for (const begin of ['read', 'list'] as const) {
        await visit(connection(), async (files) => {
          const stop = new AbortController()
          const { signal } = stop
          const items: AsyncIterable<unknown> =
            begin === 'read'
              ? files.read(at('big.bin'), { signal })
              : files.list(server.root, { signal, recursive: true })
          const taking = (async () => {
            for await (const _item of items) stop.abort(reason)
          })()
          expect(await taking.catch((error: unknown) => error)).toBe(reason)
          const late = AbortSignal.abort(reason)
          expect(await all(files.list(server.root, { signal: late })).catch((error: unknown) => error)).toBe(reason)
        })
      }
    })

    test('two things at a time are refused as the bug that they are', async () => {
      await put('a.csv', 'a')
      await visit(connection(), async (files) => {
        for await (const _chunk of files.read(at('a.csv'))) {
          expect(files.stat(at('a.csv'))).rejects.toThrow('A connection does one thing at a time')
        }
        expect(await files.stat(at('a.csv'))).toBeDefined()
      })
    })

    test('a closed connection says so, and closes again without harm', async () => {
      const files = await connect(connection())
      await files.close()
      expect(await failureOf(files.stat(at('a')))).toMatchObject({ reason: 'closed' })
      expect(await failureOf(all(files.list(server.root)))).toMatchObject({ reason: 'closed' })
      await files.close()
    })

    test('many connections work side by side', async () => {
      await put('a.bin', randomBytes(1_000_000))
      const content = await readFile(onDisk('a.bin'))
      const copies = await Promise.all(
        Array.from({ length: 5 }, () => visit(connection(), (files) => bytesOf(files.read(at('a.bin'))))),
      )
      for (const copy of copies) expect(copy.equals(content)).toBe(true)
    })
  })
}

function usable(entries: RemoteEntry[]): RemoteFile[] {
  return entries.filter((entry) => entry.kind !== 'refused')
}
