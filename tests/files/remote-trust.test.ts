import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { createServer } from 'node:tls'
import type { RemoteConnection } from '../../src/files/remote-files.ts'
import type { Certificate } from '../support/certificates.ts'
import { type FileServer, startPureFtpd, startVsftpd } from '../support/ftp-servers.ts'
import { startScriptedFtp } from '../support/scripted-ftp.ts'
import { type SftpServer, startSshd } from '../support/sshd.ts'
import { all, bytesOf, connect, failureOf, noServers, type RemoteHome, remoteHome, visit } from './remote-home.ts'

const ended: AsyncDisposable[] = []
function ending<T extends AsyncDisposable>(server: T): T {
  ended.push(server)
  return server
}
let home: RemoteHome
beforeAll(async () => {
  if (noServers === undefined) home = await remoteHome()
})
afterEach(async () => {
  for (const server of ended.splice(0)) await server[Symbol.asyncDispose]()
})
afterAll(async () => {
  await home?.[Symbol.asyncDispose]()
})

const withTls = ({ connection }: FileServer, tls: Partial<RemoteConnection['tls']>): RemoteConnection => ({
  ...connection,
  tls: { ...connection.tls, ...tls },
})

describe.skipIf(noServers !== undefined)('certificates of FTPS servers', () => {
  const start = async (certificate: Certificate, mode: 'explicit' | 'implicit' = 'explicit') =>
    ending(await startVsftpd(home.path, { tls: { certificate, mode } }))

  test.each(['explicit', 'implicit'] as const)(
    '%s: one by an authority that is not trusted here is refused, and shown',
    async (mode) => {
      const { good } = home.certificates
      const server = await start(good, mode)
      const failure = await failureOf(connect(server.connection))
      expect(failure).toMatchObject({
        layer: 'tls',
        reason: 'untrusted',
        identity: { tls: { fingerprint: good.fingerprint, issuer: 'O=Longshore Test, CN=Authority' } },
      })
      expect(failure.message).toContain('an authority that is not trusted here')
      expect(failure.message).toContain(good.fingerprint)
    },
  )

  test('one that has expired, and one for another host, are refused although their authority is trusted', async () => {
    const { ca, expired, wrongHost } = home.certificates
    for (const [certificate, words] of [
      [expired, 'its certificate has expired'],
      [wrongHost, 'its certificate is for another host'],
    ] as const) {
      const failure = await failureOf(connect(withTls(await start(certificate), { ca })))
      expect(failure).toMatchObject({ layer: 'tls', reason: 'untrusted', message: expect.stringContaining(words) })
    }
  })

  test('a good one is trusted by its authority, its fingerprint, or when nothing is verified', async () => {
    const { ca, good, expired } = home.certificates
    const server = await start(good)
    const hex = good.fingerprint.replaceAll(':', '').toLowerCase()
    for (const tls of [
      { ca },
      { fingerprint: good.fingerprint },
      { fingerprint: `SHA256:${hex}` },
      { verify: false },
    ]) {
      await visit(withTls(server, tls), (files) => all(files.list(server.root)))
    }
    // The pin says all: who pins a certificate knows that it is the server's.
    const old = await start(expired)
    await visit(withTls(old, { fingerprint: expired.fingerprint }), (files) => all(files.list(old.root)))
  })

  test('another one than the pinned is refused, even by a trusted authority or with verification off', async () => {
    const { ca, good, expired } = home.certificates
    const server = await start(good)
    for (const tls of [{ ca }, { verify: false }]) {
      const failure = await failureOf(connect(withTls(server, { ...tls, fingerprint: expired.fingerprint })))
      expect(failure).toMatchObject({ layer: 'tls', reason: 'untrusted' })
      expect(failure.message).toContain(`${good.fingerprint}, not the pinned one`)
    }
  })

  test('a stranger on the data port is refused before a byte of his is taken', async () => {
    const { ca, good, wrongHost } = home.certificates
    const tls = { certificate: good, dataCertificate: wrongHost }
    const server = ending(await startScriptedFtp({ tls, data: 'forged' }))
    const connection: RemoteConnection = {
      protocol: 'ftps',
      host: '127.0.0.1',
      port: server.port,
      auth: { kind: 'password', username: 'joe', password: 'secret' },
      tls: { verify: true, ca, minVersion: 'TLSv1.2' },
      passiveHost: 'control',
    }
    for (const verify of [true, false]) {
      const failure = await failureOf(
        visit({ ...connection, tls: { ...connection.tls, verify } }, (files) => bytesOf(files.read('/a'))),
      )
      expect(failure).toMatchObject({ layer: 'tls', reason: 'untrusted' })
      expect(failure.message).toContain('another certificate than the control connection')
    }
  })

  test('a server that speaks only old TLS, none, or something else, is told as that', async () => {
    const { good, ca } = home.certificates
    const old = createServer({
      cert: await readFile(good.certFile),
      key: await readFile(good.keyFile),
      maxVersion: 'TLSv1.2',
    })
    old.on('tlsClientError', () => {})
    await new Promise<void>((done) => old.listen(0, '127.0.0.1', done))
    ending({ [Symbol.asyncDispose]: () => new Promise<void>((done) => old.close(() => done())) })
    const { port } = old.address() as { port: number }
    const plain = ending(await startPureFtpd(home.path))
    const modern = { verify: true, ca, minVersion: 'TLSv1.3' } as const
    const tooOld = await failureOf(connect({ ...plain.connection, protocol: 'ftps-implicit', port, tls: modern }))
    expect(tooOld).toMatchObject({ layer: 'tls', message: expect.stringContaining('too old') })
    const explicit = await failureOf(connect({ ...plain.connection, protocol: 'ftps' }))
    expect(explicit).toMatchObject({ layer: 'tls', message: expect.stringContaining('Cannot switch to TLS') })
    const implicit = await failureOf(connect({ ...plain.connection, protocol: 'ftps-implicit' }))
    expect(implicit).toMatchObject({ layer: 'tls', message: expect.stringContaining('what answers there is not TLS') })
  })

  test('no password leaves before TLS, and no data without it', async () => {
    const { good, ca } = home.certificates
    const login = {
      protocol: 'ftps',
      host: '127.0.0.1',
      auth: { kind: 'password', username: 'joe', password: 'secret' },
      tls: { verify: true, ca, minVersion: 'TLSv1.2' },
      passiveHost: 'control',
    } as const
    const plain = ending(await startScriptedFtp({}))
    expect(await failureOf(connect({ ...login, port: plain.port }))).toMatchObject({ layer: 'tls' })
    expect(plain.commands.filter((line) => /USER|PASS/.test(line))).toEqual([])
    const strange = ending(await startScriptedFtp({ tls: { certificate: home.certificates.expired } }))
    expect(await failureOf(connect({ ...login, port: strange.port }))).toMatchObject({ reason: 'untrusted' })
    expect(strange.commands.filter((line) => /USER|PASS/.test(line))).toEqual([])
    const open = ending(await startScriptedFtp({ tls: { certificate: good }, replies: { PROT: '536 not here' } }))
    const failure = await failureOf(connect({ ...login, port: open.port }))
    expect(failure).toMatchObject({
      layer: 'tls',
      message: expect.stringContaining('Cannot protect the data connections'),
    })
  })
})

describe.skipIf(noServers !== undefined)('logins', () => {
  test('FTP: a wrong password is told as that, without the password', async () => {
    const vsftpd = ending(await startVsftpd(home.path))
    // It takes its time to refuse one.
    const pure = ending(await startPureFtpd(home.path))
    for (const [server, password] of [
      [vsftpd, 'wrong horse'],
      [vsftpd, 'a\r\nb'],
      [vsftpd, ''],
      [pure, 'wrong horse'],
    ] as const) {
      const { username } = server.connection.auth
      const failure = await failureOf(connect({ ...server.connection, auth: { kind: 'password', username, password } }))
      expect(failure.layer).toBe('login')
      expect(failure.message).toStartWith(`Cannot log in as "${username}" at ftp://127.0.0.1:${server.port}: `)
      if (password) expect(JSON.stringify({ ...failure, message: failure.message })).not.toContain(password)
    }
  }, 60_000)

  test('what a server says that repeats the password is withheld', async () => {
    const server = ending(
      await startScriptedFtp({ replies: { PASS: (argument) => `530 "${argument}" is no password of "joe"` } }),
    )
    const failure = await failureOf(
      connect({
        protocol: 'ftp',
        host: '127.0.0.1',
        port: server.port,
        auth: { kind: 'password', username: 'joe', password: 'hunter2' },
        tls: { verify: true, minVersion: 'TLSv1.2' },
        passiveHost: 'control',
      }),
    )
    expect(failure).toMatchObject({ layer: 'login', reason: 'denied' })
    expect(failure.message).toEndWith('the server says (withheld, it repeats the password)')
  })

  test('SFTP: a wrong password and a wrong key are told as that', async () => {
    const byPassword = ending(await startSshd(home.path))
    const username = byPassword.connection.auth.username
    const wrong = await failureOf(
      connect({ ...byPassword.connection, auth: { kind: 'password', username, password: 'wrong horse' } }),
    )
    expect(wrong).toMatchObject({ layer: 'login', reason: 'denied' })
    expect(wrong.message).toEndWith('the server does not accept this user name with this password')
    const byKey = ending(await startSshd(home.path, { auth: 'key' }))
    const strange = { kind: 'key', username, privateKey: byPassword.key.plain } as const
    expect(await failureOf(connect({ ...byKey.connection, auth: strange }))).toMatchObject({
      layer: 'login',
      reason: 'denied',
      message: expect.stringContaining('with this key'),
    })
  })

  test('SFTP: a key with a passphrase is opened by it, and a key that cannot be read is told', async () => {
    const server = ending(await startSshd(home.path, { auth: 'key' }))
    const { username } = server.connection.auth
    const { locked, passphrase } = server.key
    const login = (privateKey: string, word?: string) =>
      connect({
        ...server.connection,
        auth: { kind: 'key', username, privateKey, ...(word !== undefined && { passphrase: word }) },
      })
    await (await login(locked, passphrase)).close()
    for (const [key, word] of [[locked], [locked, 'wrong words'], ['no key at all']] as const) {
      const failure = await failureOf(login(key, word))
      expect(failure.layer).toBe('login')
      expect(failure.message).toContain('the private key cannot be read')
      expect(failure.message).not.toContain('wrong words')
    }
  })

  test('SFTP: a server that asks for the password as a question gets it', async () => {
    const server = ending(await startSshd(home.path, { auth: 'keyboard-interactive' }))
    await visit(server.connection, (files) => all(files.list(server.root)))
  })

  test('a server without SFTP, and one that speaks the other protocol, are told as that', async () => {
    const without = ending(await startSshd(home.path, { subsystem: '/bin/false' }))
    expect(await failureOf(connect(without.connection))).toMatchObject({
      layer: 'login',
      message: expect.stringContaining('it offers no SFTP'),
    })
    const ftp = ending(await startVsftpd(home.path))
    for (const [server, port, words] of [
      [without, ftp.port, 'is the protocol ftp?'],
      [ftp, without.port, 'is the protocol sftp?'],
    ] as const) {
      const failure = await failureOf(connect({ ...server.connection, port }))
      expect(failure).toMatchObject({ layer: 'connect', reason: 'protocol' })
      expect(failure.message).toContain(words)
    }
  })
})

describe.skipIf(noServers !== undefined)('host keys of SFTP servers', () => {
  const start = async () => ending(await startSshd(home.path))
  const pinned = ({ connection }: SftpServer, hostKey: string) => ({ ...connection, hostKey })

  test('one that is not pinned is accepted and told', async () => {
    const server = await start()
    const { hostKey } = await visit(server.connection, async (files) => files.identity)
    expect(hostKey).toEqual({ algorithm: 'ssh-ed25519', fingerprint: server.hostKeys.ed25519 })
  })

  test('any of the server is accepted when it is the pinned one', async () => {
    const server = await start()
    for (const fingerprint of [server.hostKeys.ed25519, server.hostKeys.rsa, `${server.hostKeys.rsa}=`]) {
      const { hostKey } = await visit(pinned(server, fingerprint), async (files) => files.identity)
      expect(hostKey?.fingerprint).toBe(fingerprint.replace('=', ''))
    }
  })

  test('a changed one is refused before the login, with what to compare', async () => {
    const [server, other] = [await start(), await start()]
    // A wrong password would be told as that, were it sent.
    const auth = { kind: 'password', username: 'nobody', password: 'none' } as const
    const failure = await failureOf(connect({ ...pinned(server, other.hostKeys.ed25519), auth }))
    expect(failure).toMatchObject({ layer: 'hostkey', reason: 'untrusted' })
    expect(failure.message).toContain(
      `(ssh-ed25519) is ${server.hostKeys.ed25519}, but ${other.hostKeys.ed25519} is pinned`,
    )
    expect(failure.identity.hostKey?.fingerprint).toMatch(/^SHA256:/)
  })
})

test.skipIf(noServers !== undefined)('keys and certificates on disk are no part of a failure', async () => {
  const server = ending(await startSshd(home.path, { auth: 'key' }))
  await writeFile(join(server.folder, 'a'), '')
  const auth = { ...server.connection.auth, username: 'nobody' }
  const failure = await failureOf(connect({ ...server.connection, auth }))
  expect(JSON.stringify({ ...failure, message: failure.message, stack: failure.stack })).not.toContain('PRIVATE KEY')
})
