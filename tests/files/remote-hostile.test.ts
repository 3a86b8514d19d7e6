import { afterEach, describe, expect, test } from 'bun:test'
import type { RemoteConnection } from '../../src/files/remote-files.ts'
import { startScriptedFtp } from '../support/scripted-ftp.ts'
import { all, bytesOf, connect, failureOf, visit } from './remote-home.ts'

const ended: AsyncDisposable[] = []
function ending<T extends AsyncDisposable>(server: T): T {
  ended.push(server)
  return server
}
afterEach(async () => {
  for (const server of ended.splice(0)) await server[Symbol.asyncDispose]()
})

describe('what a server may not make a client do', () => {
  const connection = (port: number): RemoteConnection => ({
    protocol: 'ftp',
    host: '127.0.0.1',
    port,
    auth: { kind: 'password', username: 'joe', password: 'secret' },
    tls: { verify: true, minVersion: 'TLSv1.2' },
    passiveHost: 'control',
  })
  const data = 'the right bytes'

  test('data is fetched from the host of the control connection, whatever address it announces', async () => {
    const server = ending(
      await startScriptedFtp({ data, announcedHost: '169.254.169.254', replies: { EPSV: '500 no' } }),
    )
    expect((await visit(connection(server.port), (files) => bytesOf(files.read('/a')))).toString()).toBe(data)
    const announced = { ...connection(server.port), passiveHost: 'announced' } as const
    const failure = await failureOf(visit(announced, (there) => bytesOf(there.read('/a'))))
    expect(failure).toMatchObject({ layer: 'resolve', reason: 'forbidden' })
    expect(failure.message).toContain('169.254.169.254')
  })

  test('an announced address is used where the source says so', async () => {
    const server = ending(await startScriptedFtp({ data }))
    const announced = { ...connection(server.port), passiveHost: 'announced' } as const
    expect((await visit(announced, (files) => bytesOf(files.read('/a')))).toString()).toBe(data)
    expect(server.commands).toContain('PASV')
  })

  test('a server without EPSV is asked by PASV, from then on at once', async () => {
    const server = ending(await startScriptedFtp({ data, replies: { EPSV: '502 no' } }))
    await visit(connection(server.port), async (files) => {
      for (let round = 0; round < 3; round++) expect((await bytesOf(files.read('/a'))).toString()).toBe(data)
    })
    expect(server.commands.filter((line) => line === 'EPSV')).toHaveLength(1)
  })

  test('a server whose EPSV leads nowhere is asked by PASV', async () => {
    const server = ending(await startScriptedFtp({ data, replies: { EPSV: '229 here (|||1|)' } }))
    await visit(connection(server.port), async (files) => {
      for (let round = 0; round < 2; round++) expect((await bytesOf(files.read('/a'))).toString()).toBe(data)
    })
    const nowhere = ending(await startScriptedFtp({ replies: { EPSV: '229 here (|||1|)', PASV: '227 (1,2,3)' } }))
    await visit(connection(nowhere.port), async (files) => {
      expect(await failureOf(bytesOf(files.read('/a')))).toMatchObject({ layer: 'read', reason: 'protocol' })
      expect(await files.stat('/')).toMatchObject({ kind: 'directory' })
    })
  })

  test('a server without SIZE is asked for the time, and without a data port it is told as that', async () => {
    const replies = { EPSV: '229 here (|||1|)', PASV: '227 here (127,0,0,1,0,1)', MDTM: '213 20260102030405' }
    const server = ending(await startScriptedFtp({ replies }))
    await visit(connection(server.port), async (files) => {
      expect(await files.stat('/a')).toMatchObject({ kind: 'file', size: null, modifiedAt: '2026-01-02T03:04:05Z' })
      const failure = await failureOf(bytesOf(files.read('/a')))
      expect(failure).toMatchObject({ layer: 'read', reason: 'refused' })
      expect(failure.message).toContain("are the server's passive ports open?")
    })
  })

  test('a flood of one line is ended', async () => {
    const flood = ending(await startScriptedFtp({ data: 'x'.repeat(1_000_000) }))
    expect(await failureOf(visit(connection(flood.port), (files) => all(files.list('/'))))).toMatchObject({
      layer: 'list',
      reason: 'limit',
    })
    const greeting = ending(await startScriptedFtp({ greeting: `220-${'x'.repeat(100_000)}` }))
    expect(await failureOf(connect(connection(greeting.port)))).toMatchObject({ layer: 'connect' })
  })

  test('a directory that holds itself is not followed for ever', async () => {
    const line = 'drwxr-xr-x 2 0 0 4096 Jan 01 00:00 again\r\n'
    const server = ending(await startScriptedFtp({ data: line }))
    const failure = await failureOf(
      visit(connection(server.port), (files) => all(files.list('/', { recursive: true }))),
    )
    expect(failure).toMatchObject({ layer: 'list', reason: 'limit', message: expect.stringContaining('deep') })
  })

  test('a listing cannot put a line end, or another directory, into a command', async () => {
    const lines = ['..', 'a\rDELE b', '../../etc/passwd', '/etc/passwd', 'c:\\x', 'ok.csv', '\u0000'].map(
      (name) => `-rw-r--r-- 1 0 0 5 Jan 01 00:00 ${name}\r\n`,
    )
    const server = ending(await startScriptedFtp({ data: `${lines.join('')}gibberish\r\n` }))
    const entries = await visit(connection(server.port), (files) => all(files.list('/in')))
    expect(entries.filter(({ kind }) => kind !== 'refused')).toMatchObject([{ path: '/in/ok.csv' }])
    expect(entries.filter(({ kind }) => kind === 'refused')).toHaveLength(lines.length - 1)
  })

  test('text of a server is shown in one line, without control characters and not for ever', async () => {
    const server = ending(await startScriptedFtp({ replies: { PASS: `530 \u001b[31mred\u0007${'x'.repeat(5_000)}` } }))
    const { message } = await failureOf(connect(connection(server.port)))
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
    expect(message).not.toMatch(/[\u0000-\u001f]/)
    expect(message.length).toBeLessThan(500)
  })
})
