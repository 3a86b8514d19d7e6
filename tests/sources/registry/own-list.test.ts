import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Access } from '../../../src/api/access.ts'
import { ftpProducerRoutes } from '../../../src/api/compat/ftp-producer.ts'
import { realClock } from '../../../src/runtime/clock.ts'
import { Problem } from '../../../src/runtime/errors.ts'
import { lookAtRegistry } from '../../../src/sources/registry/registry.ts'
import { listSources, type StoredSource } from '../../../src/store/sources/read.ts'
import type { SourcePatch } from '../../../src/task/source/source.ts'
import { type ApiUnderTest, apiUnderTest, sourceDeps } from '../../api/api-under-test.ts'
import { noServers, type RemoteHome, remoteHome } from '../../files/remote-home.ts'
import { testDatabase } from '../../support/database.ts'
import { type FileServer, startVsftpd } from '../../support/ftp-servers.ts'
import { silent } from '../../support/services.ts'
import { type SourcesUnderTest, sourcesUnderTest } from '../sources-under-test.ts'

describe.skipIf(noServers !== undefined)("another Longshore's list, which tells no passwords,", () => {
  let home: RemoteHome
  let server: FileServer
  let theirs: ApiUnderTest
  let under: SourcesUnderTest
  let registry: Bun.Server<undefined>
  /** Added to each connection of the list. */
  let more: object
  let number: number
  beforeAll(async () => {
    home = await remoteHome()
    ;[server, theirs, under] = await Promise.all([startVsftpd(home.path), theirRegistry(), sourcesUnderTest()])
    registry = Bun.serve({
      port: 0,
      fetch: async () => {
        const { json } = await theirs.call('GET', '/ftp/api/list/')
        return Response.json(json.map((connection: object) => ({ ...connection, ...more })))
      },
    })
    await writeFile(join(server.folder, 'a.csv'), 'id\n1\n')
  })
  afterAll(async () => {
    await registry?.stop(true)
    await theirs?.close()
    for (const each of [under, server, home]) await each?.[Symbol.asyncDispose]()
  })
  beforeEach(async () => {
    more = {}
    for (const pool of [under.pool, theirs.test.database.pool]) await pool.query('delete from sources')
    const { port, auth } = server.connection
    const json = { host: '127.0.0.1', port, ...auth, kind: undefined, directory: server.root, content_type: 'csv' }
    number = (await theirs.call('POST', '/ftp/api/create/', { json })).json.ftp_connection
  })

  /** The routes of the older registry, on a ledger of their own. */
  async function theirRegistry(): Promise<ApiUnderTest> {
    const test = await testDatabase('server')
    const { pool, sources } = sourceDeps(test)
    const made = { ensureTransactions: async () => {}, ensureTopology: async () => {} }
    const routes = (access: Access) => [ftpProducerRoutes(access, { pool, sources, ...made })]
    const api = await apiUnderTest('server', { test, compat: { withoutKey: false, routes } })
    await api.call('PUT', '/api/v1/queues/client_transaction', { json: {} })
    return api
  }

  const PASSWORD = 'correct horse'
  const login = (over = {}) => ({ kind: 'password' as const, username: 'anonymous', password: PASSWORD, ...over })
  /** Looks at the list, and gives the source that it has become. */
  async function look(): Promise<StoredSource> {
    const url = `http://127.0.0.1:${registry.port}`
    const { pool, box } = under
    await pool.query(`insert into settings (name, value) values ('source-registry', '{}') on conflict do nothing`)
    const deps = { pool, box, url, clock: realClock, log: silent, cron: '* * * * *', onChanged() {}, onTopology() {} }
    await lookAtRegistry(deps, new AbortController().signal)
    const [source] = await listSources(pool, { limit: 2 })
    if (!source) throw new Error('The list has become no source')
    return source
  }
  const change = async (json: object) => {
    expect((await theirs.call('PUT', `/ftp/api/update/${number}/`, { json })).status).toBe(200)
  }
  const refusal = async (source: StoredSource, patch: SourcePatch) => {
    const error = await under.sources.patch(source.id, patch).catch((thrown: unknown) => thrown)
    return error instanceof Problem ? [error.code, error.errors[0]?.path] : error
  }

  test('makes a source that says it needs its password, and takes it here', async () => {
    const source = await look()
    expect(source).toMatchObject({ auth: { username: 'anonymous', secret: 'missing' }, sealed: null })
    expect((await under.poll(source)).error).toMatchObject({
      ...{ layer: 'secret', reason: 'missing' },
      message: expect.stringContaining('PATCH the source\'s "auth"'),
    })
    expect(await refusal(source, { auth: login({ username: 'somebody' }) })).toEqual(['validation', '/auth/username'])
    expect(await refusal(source, { auth: null })).toEqual(['conflict', '/auth'])
    await under.sources.patch(source.id, { auth: login(), ready: { kind: 'at-once' } })
    expect(await under.poll(source)).toMatchObject({ error: null, fetched: 1 })

    const given = await look()
    await look()
    expect(await look()).toEqual(given)
    expect(given.auth).toEqual({ kind: 'password', username: 'anonymous', secret: 'given' })
    await change({ directory: `${server.root}/`, content_type: 'json' })
    expect(await look()).toMatchObject({ auth: { secret: 'given' }, settings: { directory: `${server.root}/` } })
    expect((await under.poll(source)).error).toBeNull()
    // It can be given again, as when it was mistyped.
    await under.sources.patch(source.id, { auth: login({ password: 'mistyped' }) })
    expect((await under.poll(source)).error).toMatchObject({ layer: 'login' })
  })

  test.each([
    ['host', { host: 'localhost', password: PASSWORD }],
    ['port', { port: 2121, password: PASSWORD }],
    ['user name', { username: 'somebody', password: PASSWORD }],
  ])('drops the password of before with another %s', async (_what, json) => {
    const { id } = await look()
    await under.sources.patch(id, { auth: login() })
    expect((await under.poll({ id })).error).toBeNull()
    await change(json)
    const moved = await look()
    const username = 'username' in json ? json.username : 'anonymous'
    expect(moved).toMatchObject({ id, auth: { username, secret: 'missing' }, sealed: null })
    expect((await under.poll({ id })).error).toMatchObject({ layer: 'secret', reason: 'missing' })
    expect(await look()).toEqual({ ...moved, poll: expect.anything(), polledAt: expect.anything() })
  })

  test('decides by itself as soon as it tells passwords, and leaves the last one when it does not any more', async () => {
    const { id } = await look()
    await under.sources.patch(id, { auth: login({ password: 'old' }) })
    more = { password: PASSWORD }
    const listed = await look()
    expect(listed.auth?.secret).toBe('listed')
    expect(await refusal(listed, { auth: login() })).toEqual(['conflict', '/auth'])
    expect((await under.poll({ id })).error).toBeNull()
    more = {}
    expect((await look()).auth?.secret).toBe('given')
    expect((await under.poll({ id })).error).toBeNull()
    more = { username: '' }
    expect(await look()).toMatchObject({ auth: null, sealed: null })
  })
})
