import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { Problem } from '../../src/runtime/errors.ts'
import { changedTrust } from '../../src/sources/trust.ts'
import { testSource } from '../../src/sources/try-source.ts'
import { sourceById } from '../../src/store/sources/read.ts'
import type { SourcePatch, SourceSettings } from '../../src/task/source/source.ts'
import type { Source } from '../../src/task/source/state.ts'
import { noServers, type RemoteHome, remoteHome } from '../files/remote-home.ts'
import { startPureFtpd } from '../support/ftp-servers.ts'
import { type ScriptedFtp, startScriptedFtp } from '../support/scripted-ftp.ts'
import { startSshd } from '../support/sshd.ts'
import { RECORDS, type SourcesUnderTest, sourcesUnderTest } from './sources-under-test.ts'

const PASSWORD = 'correct horse'
const PIN = (letter: string) => `SHA256:${letter.repeat(43)}`
const CERTIFICATE = (pair: string) => Array(32).fill(pair).join(':')

describe('a password that is stored', () => {
  let under: SourcesUnderTest
  let theirs: ScriptedFtp
  let other: ScriptedFtp
  beforeAll(async () => {
    under = await sourcesUnderTest()
    ;[theirs, other] = await Promise.all([startScriptedFtp({ data: '' }), startScriptedFtp({ data: '' })])
  })
  afterAll(async () => {
    for (const each of [under, theirs, other]) await each?.[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    await under.pool.query('delete from sources')
    other.commands.length = 0
  })

  const bank = () =>
    under.sources.create({
      name: 'bank',
      ...{ protocol: 'ftp', host: '127.0.0.1', port: theirs.port },
      auth: { kind: 'password', username: 'reports', password: PASSWORD },
      deliver: { queue: RECORDS },
    })
  const refusal = (source: Source, patch: SourcePatch) =>
    under.sources.patch(source.id, patch).then(
      () => undefined,
      (error: unknown) => (error instanceof Problem ? error.errors : Promise.reject(error)),
    )
  const stored = async ({ id }: Source) => {
    const source = await sourceById(under.pool, id)
    if (!source) throw new Error('There is no source')
    return source
  }

  test('is sent to no other server than the one it was given for', async () => {
    const source = await bank()
    const again = [{ path: '/auth', message: expect.stringContaining('give the password again') }]
    expect(await refusal(source, { port: other.port })).toEqual(again)
    expect(await refusal(source, { host: 'localhost', port: other.port, name: 'mine' })).toEqual(again)
    expect(await refusal(source, { protocol: 'ftps' })).toEqual(again)
    expect((await testSource(await stored(source), under.deps)).failure).toBeNull()
    expect((await under.poll(source)).error).toBeNull()
    expect(theirs.commands).toContain(`PASS ${PASSWORD}`)
    expect(other.commands).toEqual([])
  })

  test('gives way to one that comes with the new server, or to none', async () => {
    const source = await bank()
    await under.sources.patch(source.id, {
      port: other.port,
      auth: { kind: 'password', username: 'reports', password: 'staple' },
    })
    expect((await under.poll(source)).error).toBeNull()
    expect(other.commands).toContain('PASS staple')
    await under.sources.patch(source.id, { port: theirs.port, auth: null })
    // Nothing is stored: nothing is to be given.
    await under.sources.patch(source.id, { port: other.port })
    expect((await under.poll(source)).error).toBeNull()
    expect(other.commands.join()).not.toContain(PASSWORD)
  })

  test('stays where nothing says that it is another server', async () => {
    const source = await bank()
    await under.sources.patch(source.id, { host: '127.0.0.1', directory: '/out', recursive: true, passiveHost: null })
    expect((await stored(source)).sealed).not.toBeNull()
  })
})

describe.skipIf(noServers !== undefined)('who a server is that the source itself states', () => {
  let under: SourcesUnderTest
  let home: RemoteHome
  beforeAll(async () => {
    ;[under, home] = await Promise.all([sourcesUnderTest(), remoteHome()])
  })
  afterAll(async () => {
    for (const each of [under, home]) await each?.[Symbol.asyncDispose]()
  })

  /** Polls a source that states somebody else, and gives what is said about it. */
  async function met(source: Source, fingerprint: string): Promise<{ alert: string; refusal: unknown }> {
    expect((await under.poll(source)).error).toMatchObject({ layer: 'identity', reason: 'untrusted' })
    const refusal = await under.sources.confirm(source.id, fingerprint).catch((error: unknown) => error)
    const { alert } = await under.read(source)
    return { alert: alert?.message ?? '', refusal }
  }
  const refused = (field: string) =>
    expect.objectContaining({ code: 'conflict', detail: expect.stringContaining(`PATCH its "${field}"`) })

  test('is changed there, as its alert says: a host key', async () => {
    await using server = await startSshd(home.path)
    const { ed25519 } = server.hostKeys
    const source = await under.create(server, { hostKey: PIN('A') })
    const { alert, refusal } = await met(source, ed25519)
    expect(alert).toContain(`another host key than the source states: ${ed25519}`)
    expect(alert).toEndWith('PATCH its "hostKey" and give "auth" again')
    expect(refusal).toEqual(refused('hostKey'))
    await under.sources.patch(source.id, { hostKey: ed25519, auth: server.connection.auth })
    expect((await under.read(source)).alert).toBeNull()
    expect((await under.poll(source)).error).toBeNull()
  })

  test('is changed there, as its alert says: a certificate', async () => {
    const { good, wrongHost } = home.certificates
    await using server = await startPureFtpd(home.path, { tls: { certificate: good, mode: 'explicit' } })
    const source = await under.create(server, { tls: { fingerprint: wrongHost.fingerprint } })
    const { alert, refusal } = await met(source, good.fingerprint)
    expect(alert).toEndWith('PATCH its "tls.fingerprint" and give "auth" again')
    expect(refusal).toEqual(refused('tls.fingerprint'))
    await under.sources.patch(source.id, { tls: { fingerprint: good.fingerprint }, auth: server.connection.auth })
    expect((await under.poll(source)).error).toBeNull()
  })
})

describe('another server may be meant, or be trusted,', () => {
  const FTPS: SourceSettings = { protocol: 'ftps', host: 'a.example' }
  const SFTP: SourceSettings = { protocol: 'sftp', host: 'a.example' }

  test.each<[SourceSettings, SourceSettings, string]>([
    [FTPS, { ...FTPS, protocol: 'ftp' }, 'protocol'],
    [FTPS, { ...FTPS, host: 'b.example' }, 'host'],
    [FTPS, { ...FTPS, port: 990 }, 'port'],
    [FTPS, { ...FTPS, tls: { verify: false } }, 'tls'],
    [{ ...FTPS, tls: { verify: false } }, FTPS, 'tls'],
    [FTPS, { ...FTPS, tls: { ca: 'of mine' } }, 'tls'],
    [{ ...FTPS, tls: { ca: 'theirs' } }, FTPS, 'tls'],
    [FTPS, { ...FTPS, tls: { fingerprint: CERTIFICATE('ab') } }, 'tls'],
    [{ ...FTPS, tls: { minVersion: 'TLSv1.3' } }, FTPS, 'tls'],
    [SFTP, { ...SFTP, hostKey: PIN('a') }, 'hostKey'],
    [{ ...SFTP, hostKey: PIN('a') }, SFTP, 'hostKey'],
  ])('from %j to %j', (before, after, field) => {
    expect(changedTrust(before, after)).toBe(field as 'tls')
  })

  test.each<[SourceSettings, SourceSettings]>([
    [FTPS, { ...FTPS, port: 21, tls: { verify: true } }],
    [FTPS, { ...FTPS, tls: { minVersion: 'TLSv1.3' } }],
    [SFTP, { ...SFTP, port: 22, directory: '/out', cron: '* * * * *' }],
  ])('but not from %j to %j', (before, after) => {
    expect(changedTrust(before, after)).toBeUndefined()
  })
})
