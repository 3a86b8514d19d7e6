import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'bun:test'
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { realClock } from '../../../src/runtime/clock.ts'
import { createSecretBox } from '../../../src/runtime/secret-box.ts'
import { createRegistry, lookAtRegistry, type RegistryDeps } from '../../../src/sources/registry/registry.ts'
import { createSources } from '../../../src/sources/sources.ts'
import { REGISTRY, type RegistryState, registryState } from '../../../src/store/sources/managed.ts'
import { listSources } from '../../../src/store/sources/read.ts'
import { aboutSource } from '../../../src/store/sources/secrets.ts'
import { type TaskLedger, taskLedger } from '../../support/tasks.ts'
import { until } from '../../support/until.ts'

const BANK = {
  id: 7,
  host: 'ftp.bank.example',
  port: 2121,
  username: 'bank',
  password: 'hunter2',
  directory: '/out',
  content_type: 'csv',
}
const SHOP = { ...BANK, id: 8, host: 'ftp.shop.example', username: 'shop', content_type: 'xml' }
const box = createSecretBox([Buffer.alloc(32, 9)])

describe('the registry of FTP connections', () => {
  let ledger: TaskLedger
  let server: Server
  let answer: (response: ServerResponse) => void
  let asked: { url: string | undefined; authorization: string | undefined }[]
  let logged: unknown[]
  let deps: RegistryDeps

  beforeAll(async () => {
    ledger = await taskLedger('server')
    server = createServer((request, response) => {
      asked.push({ url: request.url, authorization: request.headers.authorization })
      answer(response)
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  })
  afterAll(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await ledger.test.drop()
  })
  beforeEach(async () => {
    await ledger.pool.query(`delete from consumers; delete from sources; delete from settings`)
    await ledger.clear()
    asked = []
    logged = []
    const tell = (...line: unknown[]) => void logged.push(line)
    deps = {
      pool: ledger.pool,
      clock: realClock,
      log: { fatal: tell, error: tell, warn: tell, info: tell, debug: tell },
      box,
      url: `http://me:pass%20word@127.0.0.1:${(server.address() as AddressInfo).port}`,
      cron: '* * * * * *',
      onChanged() {},
      onTopology() {},
    }
  })

  const says = (list: unknown) => {
    answer = (response) => void response.end(typeof list === 'string' ? list : JSON.stringify(list))
  }
  const look = () => lookAtRegistry(deps, new AbortController().signal)
  const state = async () => (await registryState(ledger.pool)) as RegistryState
  const sources = () => listSources(ledger.pool, { limit: 100 })
  /** Nothing of the list is ever in a log line, a state or a row in clear. */
  async function expectNoSecrets(): Promise<void> {
    const { rows } = await ledger.pool.query('select name, settings, auth, poll, alert from sources')
    const { rows: settings } = await ledger.pool.query('select value from settings')
    expect(JSON.stringify([logged, rows, settings])).not.toMatch(/hunter2|pass word|pass%20word/)
  }

  /** A turn, as the service takes it before it looks. */
  const taken = () =>
    ledger.pool.query(`insert into settings (name, value) values ('source-registry', '{}') on conflict do nothing`)

  test('becomes sources, whose passwords are encrypted, and whose records have a queue to wait in', async () => {
    await taken()
    says([BANK, SHOP])
    await look()
    expect(asked).toEqual([
      { url: '/ftp/api/list/', authorization: `Basic ${Buffer.from('me:pass word').toString('base64')}` },
    ])
    const [bank, shop] = await sources()
    expect(bank).toMatchObject({
      name: 'registry-7',
      managedBy: REGISTRY,
      externalId: '7',
      auth: { kind: 'password', username: 'bank', secret: 'listed' },
      settings: {
        ...{ protocol: 'ftp', host: 'ftp.bank.example', port: 2121, directory: '/out', format: { type: 'csv' } },
        deliver: { queue: 'ftp.records' },
      },
    })
    expect(bank?.sealed && box.open(bank.sealed, aboutSource(bank.id))).toBe('{"password":"hunter2"}')
    expect(shop?.settings).toMatchObject({ format: { type: 'xml', path: '/*/*' } })
    const { rows } = await ledger.pool.query(`select name from queues where name like 'ftp%' order by name`)
    expect(rows.map(({ name }) => name)).toEqual(['ftp.csv', 'ftp.json', 'ftp.records', 'ftp.xml'])
    expect(await state()).toMatchObject({ error: null, sources: 2, refused: [] })
    await expectNoSecrets()
  })

  test('brings back no consumer that somebody has deleted', async () => {
    await taken()
    says([BANK])
    await look()
    const consumers = async () => (await ledger.pool.query('select queue from consumers order by queue')).rows
    expect(await consumers()).toHaveLength(3)
    await ledger.pool.query(`delete from consumers where queue = 'ftp.csv'`)
    await look()
    expect(await consumers()).toEqual([{ queue: 'ftp.json' }, { queue: 'ftp.xml' }])
  })

  test('changes what it says, and leaves what somebody has set', async () => {
    await taken()
    says([BANK])
    await look()
    const [before] = await sources()
    const changes = createSources({
      pool: ledger.pool,
      box,
      checkHost: () => undefined,
      onChanged() {},
      onTopology() {},
    })
    await ledger.queue('mine')
    await changes.patch(before?.id ?? '', {
      deliver: { queue: 'mine', recordsPerTask: 10 },
      format: { type: 'csv', delimiter: ';' },
    })
    await expect(changes.patch(before?.id ?? '', { host: 'other.example' })).rejects.toThrow('change it there')
    await look()
    expect((await sources())[0]?.updatedAt).not.toBe(before?.updatedAt)
    const patched = (await sources())[0]
    await look()
    expect((await sources())[0]?.updatedAt).toBe(patched?.updatedAt as string)

    says([{ ...BANK, directory: '/new', password: 'other' }])
    await look()
    const [after] = await sources()
    expect(after?.settings).toMatchObject({
      directory: '/new',
      deliver: { queue: 'mine', recordsPerTask: 10 },
      format: { type: 'csv', delimiter: ';' },
    })
    expect(after?.sealed && box.open(after.sealed, aboutSource(after.id))).toBe('{"password":"other"}')
    await expectNoSecrets()
  })

  test('pauses what it does not name any more, never deletes it, and brings it back', async () => {
    await taken()
    says([BANK, SHOP])
    await look()
    says([SHOP])
    await look()
    expect((await sources()).map(({ externalId, goneAt, paused }) => [externalId, goneAt !== null, paused])).toEqual([
      ['7', true, false],
      ['8', false, false],
    ])
    says([BANK, SHOP])
    await look()
    expect((await sources()).map(({ goneAt }) => goneAt)).toEqual([null, null])
  })

  test.each<[string, () => void, string]>([
    ['not JSON', () => says('<html>hunter2</html>'), 'did not answer with JSON'],
    ['no array', () => says({ password: 'hunter2' }), 'did not answer with an array'],
    ['an error', () => (answer = (response) => void response.writeHead(500).end('hunter2')), 'answered 500'],
    [
      'a redirect',
      () => (answer = (response) => void response.writeHead(302, { location: '/' }).end()),
      'answered 302',
    ],
    ['cut off', () => (answer = (response) => void response.destroy()), 'cannot be reached'],
    [
      'endless',
      () => {
        answer = (response) => {
          const more = () => response.write('x'.repeat(1024 * 1024), more)
          more()
        }
      },
      'more than 16777216 bytes',
    ],
  ])('that is %s leaves the last list as it is, and says why', async (_what, set, error) => {
    await taken()
    says([BANK])
    await look()
    const before = await sources()
    const good = (await state()).lastGoodAt
    set()
    await look()
    expect(await sources()).toEqual(before)
    expect(await state()).toMatchObject({ error: expect.stringContaining(error), lastGoodAt: good, sources: 1 })
    await expectNoSecrets()
    says([BANK])
    await look()
    expect((await state()).error).toBeNull()
  })

  test('with one bad connection has the others, and pauses none for it', async () => {
    await taken()
    says([BANK, SHOP])
    await look()
    says([{ ...BANK, port: 'hunter2' }, SHOP, { ...SHOP, id: 9, content_type: 'pdf' }])
    await look()
    expect((await sources()).map(({ externalId, goneAt }) => [externalId, goneAt])).toEqual([
      ['7', null],
      ['8', null],
    ])
    expect((await state()).refused).toEqual([
      'Connection 0: "port" must be a port',
      'Connection 2: "content_type" must be one of csv, json, xml',
    ])
    await expectNoSecrets()
  })

  test('is looked at by one of many nodes at each turn, and by the next when its time comes', async () => {
    says([BANK])
    const from = performance.now()
    const nodes = Array.from({ length: 3 }, () => createRegistry(deps))
    for (const node of nodes) await node.start()
    await until(async () => asked.length >= 2 && (await sources()).length === 1, { what: 'two turns' })
    for (const node of nodes) await node.stop()
    // At once, and at each whole second.
    expect(asked.length).toBeLessThanOrEqual(2 + (performance.now() - from) / 1_000)
    expect(await sources()).toHaveLength(1)
  })
})
