import { expect, test } from 'bun:test'
import { chown, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { noServers, remoteHome } from '../files/remote-home.ts'
import { testBroker } from '../support/brokers.ts'
import { servers, startVsftpd } from '../support/ftp-servers.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { BROKERS } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { install } from './installation.ts'
import { callOld, expectOld } from './old-client.ts'

const CONNECTION = {
  host: 'files.example.com',
  port: 2121,
  username: 'reports',
  password: 'correct horse',
  directory: '/outgoing',
  content_type: 'csv',
}
const { password: _, ...SHOWN } = CONNECTION

test('FTP connections are made, listed, read, changed and deleted as the older registry did, and no password comes back', async () => {
  await using home = await install('embedded')
  const node = await home.start()
  expect(await expectOld(node, 200, 'GET', '/ftp/api/list/')).toEqual([])
  const made = await expectOld(node, 201, 'POST', '/ftp/api/create/', { json: CONNECTION })
  expect(made).toEqual({
    message: 'FTP connection created successfully',
    ftp_connection: expect.any(Number),
  })
  const id = made.ftp_connection
  expect(Number.isSafeInteger(id)).toBe(true)
  expect(await expectOld(node, 200, 'GET', '/ftp/api/list/')).toEqual([{ id, ...SHOWN }])
  expect(await expectOld(node, 200, 'GET', '/ftp/api/list')).toHaveLength(1)
  expect(await expectOld(node, 200, 'GET', `/ftp/api/get/${id}/`)).toEqual({ id, ...SHOWN })
  const change = { directory: '/reports', content_type: 'xml' }
  expect(await expectOld(node, 200, 'PUT', `/ftp/api/update/${id}/`, { json: change })).toEqual({
    message: 'FTP connection updated successfully',
    ftp_connection: id,
  })
  expect(await expectOld(node, 200, 'GET', `/ftp/api/get/${id}/`)).toEqual({ id, ...SHOWN, ...change })
  const { items } = await node.call<{ items: { auth: object }[] }>('GET', '/sources')
  expect(items).toMatchObject([{ auth: { kind: 'password', username: 'reports' }, cron: '* * * * *' }])

  for (const [json, field] of [
    [{ ...CONNECTION, content_type: 'pdf' }, 'content_type'],
    [{ ...CONNECTION, host: undefined }, 'host'],
    [{ ...CONNECTION, host: '169.254.169.254' }, 'host'],
    ...[70_000, 0, -1, '0', '70000', '', 'ftp', 2.5].map((port) => [{ ...CONNECTION, port }, 'port'] as const),
    [{ ...CONNECTION, directory: '/a/../b' }, 'directory'],
    [{ ...CONNECTION, surprise: 1 }, 'surprise'],
    [[], 'non_field_errors'],
  ] as const) {
    const refused = await expectOld(node, 400, 'POST', '/ftp/api/create/', { json })
    expect(refused).toEqual({ errors: { [field]: [expect.any(String)] } })
  }
  expect(await expectOld(node, 400, 'POST', '/ftp/api/create/', { body: 'no JSON' })).toHaveProperty('errors')
  for (const json of [{ username: 'somebody' }, { host: 'elsewhere.example.com' }, { port: 2122 }]) {
    const refused = await expectOld(node, 400, 'PUT', `/ftp/api/update/${id}/`, { json })
    expect(refused).toEqual({ errors: { password: [expect.any(String)] } })
  }
  for (const port of [70_000, 0, '0', '65536']) {
    const refused = await expectOld(node, 400, 'PUT', `/ftp/api/update/${id}/`, { json: { port } })
    expect(refused).toEqual({ errors: { port: ['must be from 1 to 65535'] } })
  }
  // As a client does that reads a connection, changes a field and sends all of it back.
  const read = await expectOld(node, 200, 'GET', `/ftp/api/get/${id}/`)
  await expectOld(node, 200, 'PUT', `/ftp/api/update/${id}/`, { json: { ...read, directory: '/back' } })
  expect(await expectOld(node, 200, 'GET', `/ftp/api/get/${id}/`)).toEqual({ ...read, directory: '/back' })
  for (const other of [id + 1, String(id)]) {
    const refused = await expectOld(node, 400, 'PUT', `/ftp/api/update/${id}/`, { json: { ...read, id: other } })
    expect(refused).toEqual({ errors: { id: [expect.any(String)] } })
  }
  const moved = { host: 'elsewhere.example.com', port: '2122' }
  await expectOld(node, 200, 'PUT', `/ftp/api/update/${id}/`, { json: { ...moved, password: CONNECTION.password } })
  expect(await expectOld(node, 200, 'GET', `/ftp/api/get/${id}/`)).toMatchObject({ ...moved, port: 2122 })

  expect(await expectOld(node, 200, 'DELETE', `/ftp/api/delete/${id}/`)).toMatchObject({ ftp_connection: id })
  const unknown = { error: 'FTP connection not found' }
  for (const at of [id, 7, 'x', '99999999999999999999']) {
    expect(await expectOld(node, 404, 'GET', `/ftp/api/get/${at}/`)).toEqual(unknown)
    expect(await expectOld(node, 404, 'PUT', `/ftp/api/update/${at}/`, { json: {} })).toEqual(unknown)
    expect(await expectOld(node, 404, 'DELETE', `/ftp/api/delete/${at}/`)).toEqual(unknown)
  }
  for (const [method, path] of [
    ['GET', '/ftp/api/list/'],
    ['POST', '/ftp/api/create/'],
    ['GET', '/client/api/list/'],
  ] as const) {
    expect((await callOld(node, method, path, { key: null })).status).toBe(401)
  }
  expect(JSON.stringify(node.log)).not.toContain(CONNECTION.password)
  await node.stop()
}, 150_000)

test('client transactions are added and listed, and what is not valid is told by field', async () => {
  await using home = await install('embedded')
  const node = await home.start()
  const row = { client_name: 'Ada', transaction_type: 'transfer', amount: '10.5', date: '2026-01-31', status: 'done' }
  const made = await expectOld(node, 201, 'POST', '/client/api/create/', { json: row })
  expect(made).toEqual({ message: 'Client transaction created successfully', client_transaction: 1 })
  await expectOld(node, 201, 'POST', '/client/api/create/', { json: { ...row, amount: 0.1 } })
  expect(await expectOld(node, 200, 'GET', '/client/api/list/')).toEqual([
    { id: 1, ...row, amount: '10.50' },
    { id: 2, ...row, amount: '0.10' },
  ])
  for (const [json, field] of [
    [{ ...row, date: '2026-02-30' }, 'date'],
    [{ ...row, amount: 'much' }, 'amount'],
    [{ ...row, amount: 123_456_789_012 }, 'amount'],
    [{ ...row, client_name: '' }, 'client_name'],
  ] as const) {
    const refused = await expectOld(node, 400, 'POST', '/client/api/create/', { json })
    expect(refused).toEqual({ errors: { [field]: [expect.any(String)] } })
  }
  await node.stop()
}, 150_000)

const FILES = {
  csv: ['ROWS.CSV', 'client_name,transaction_type,amount,date,status\nAda,transfer,10.50,2026-01-31,csv\n'],
  json: [
    'rows.Json',
    '[{"client_name":"Ada","transaction_type":"transfer","amount":"10.50","date":"2026-01-31","status":"json"}]',
  ],
  xml: [
    'rows.xml',
    '<rows><row><client_name>Ada</client_name><transaction_type>transfer</transaction_type><amount>10.50</amount><date>2026-01-31</date><status>xml</status></row></rows>',
  ],
} as const

for (const name of noServers === undefined ? BROKERS : []) {
  test(`${name}: files of each content type at old connections end in the old table, however their extension is written`, async () => {
    await using remote = await remoteHome()
    await using server = await startVsftpd(remote.path)
    await using home = await install('embedded')
    await using broker = await testBroker(name)
    const node = await home.start(broker.env)
    const { port, auth } = server.connection
    const { username, password } = auth as { username: string; password: string }
    for (const [type, [file, text]] of Object.entries(FILES)) {
      await expectOld(node, 201, 'POST', '/ftp/api/create/', {
        json: { host: '127.0.0.1', port, username, password, directory: server.root, content_type: type },
      })
      const path = join(server.folder, file)
      await writeFile(path, text)
      await chown(path, servers().user.uid, servers().user.gid)
    }
    const { items } = await node.call<{ items: { id: string }[] }>('GET', '/sources')
    const rows = await until(
      async () => {
        for (const { id } of items) await node.call('POST', `/sources/${id}/poll`)
        const found: { status: string }[] = await expectOld(node, 200, 'GET', '/client/api/list/')
        return found.length === 3 ? found : undefined
      },
      { timeoutMs: 90_000, what: 'a row of each file' },
    )
    expect(rows.map(({ status }) => status).sort()).toEqual(['csv', 'json', 'xml'])
    const row = { client_name: 'Ada', transaction_type: 'transfer', amount: '10.50', date: '2026-01-31' }
    for (const found of rows) expect(found).toMatchObject(row)
    await node.stop()
  }, 180_000)
}

test('the list of a registry becomes sources, and a registry that is down makes the node degraded and stops nothing', async () => {
  let list: unknown = [{ id: 7, ...CONNECTION }]
  using registry = Bun.serve({
    port: 0,
    fetch: (request) =>
      new URL(request.url).pathname === '/ftp/api/list/' && list !== undefined
        ? Response.json(list)
        : new Response('away', { status: 500 }),
  })
  await using home = await install('embedded')
  const node = await home.start({
    FTP_REGISTRY_URL: `http://127.0.0.1:${registry.port}`,
    FTP_REGISTRY_CRON: '* * * * * *',
  })
  const sources = async () =>
    (await node.call<{ items: { managedBy: string; status: string }[] }>('GET', '/sources')).items
  await until(async () => (await sources()).length === 1, { what: 'the source of the list', timeoutMs: 30_000 })
  expect(await sources()).toMatchObject([
    { managedBy: 'registry', externalId: '7', host: CONNECTION.host, status: 'active' },
  ])
  expect(await readiness(node)).toMatchObject({ status: 'ready' })
  expect(await expectOld(node, 200, 'GET', '/ftp/api/list/')).toEqual([])
  list = undefined
  await until(async () => (await readiness(node)).status === 'degraded', {
    what: 'the node to say so',
    timeoutMs: 30_000,
  })
  expect((await sources()).map(({ status }) => status)).toEqual(['active'])
  list = []
  await until(async () => (await sources())[0]?.status === 'gone', { what: 'the source to be gone', timeoutMs: 30_000 })
  await until(async () => (await readiness(node)).status === 'ready', {
    what: 'the node to be ready again',
    timeoutMs: 30_000,
  })
  await node.stop()
}, 150_000)

async function readiness(node: NodeProcess): Promise<{ status: string }> {
  return (await fetch(`${await node.listening}/health/ready`)).json() as Promise<{ status: string }>
}
