import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { Pool } from 'pg'
import { checkReadiness, type ReadinessDeps } from '../../src/api/readiness.ts'
import type { BrokerState } from '../../src/task/ledger.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

const SINCE = '2026-01-01T00:00:00.000Z'
let deps: ReadinessDeps
let api: ApiUnderTest
beforeAll(async () => {
  api = await apiUnderTest('server', { readiness: () => checkReadiness(deps) })
})
afterAll(() => api.close())

function needs(given: Partial<ReadinessDeps>): void {
  const broker = { kind: 'in-process', state: () => state('up') } as const
  deps = { pool: api.test.database.pool, embedded: false, broker, mayStart: () => true, ...given }
}

function state(status: BrokerState['status'], reason: string | null = null): BrokerState {
  return { status, since: SINCE, reason, connections: [] }
}
const rabbitmq = (status: BrokerState['status'], reason?: string): ReadinessDeps['broker'] => {
  return { kind: 'rabbitmq', state: () => state(status, reason) }
}

describe('/health/ready', () => {
  const ready = async () => {
    const { status, json } = await api.call('GET', '/health/ready', { as: null })
    return { code: status, ...json, broker: json.checks.find(({ name }: { name: string }) => name === 'broker') }
  }

  test('tells which engines are in use', async () => {
    needs({})
    expect(await ready()).toMatchObject({
      code: 200,
      status: 'ready',
      checks: [
        { name: 'database', ok: true, detail: expect.stringMatching(/^Postgres \d+/) },
        { name: 'broker', ok: true, detail: 'in-process' },
        { name: 'node', ok: true, detail: 'beats' },
      ],
    })
    needs({ broker: rabbitmq('up') })
    expect((await ready()).broker).toEqual({ name: 'broker', ok: true, detail: 'RabbitMQ' })
  })

  test('without RabbitMQ, or while that is blocked, a node takes tasks: it is degraded, and stays with the load balancer', async () => {
    needs({ broker: rabbitmq('down', 'the broker at 10.0.0.7:5672 refuses the user "ada"') })
    expect(await ready()).toMatchObject({
      code: 200,
      status: 'degraded',
      broker: { ok: false, detail: `RabbitMQ is away since ${SINCE}, tasks wait in Postgres; the log says why` },
    })
    needs({ broker: rabbitmq('blocked', 'low on memory') })
    const detail = `RabbitMQ takes no messages since ${SINCE}, tasks wait in Postgres; the log says why`
    expect(await ready()).toMatchObject({ code: 200, status: 'degraded', broker: { ok: false, detail } })
  })

  test('a database that is away is told without its address or user', async () => {
    const pool = new Pool({ connectionString: 'postgres://ada:secret@127.0.0.1:1/ledger' })
    needs({ pool })
    const { code, status, checks } = await ready()
    expect([code, status]).toEqual([503, 'not-ready'])
    expect(checks[0]).toEqual({ name: 'database', ok: false, detail: 'Postgres cannot be asked; the log says why' })
    await pool.end()
  })

  test('without beats it cannot work, whatever the broker does', async () => {
    needs({ mayStart: () => false, broker: rabbitmq('down') })
    expect(await ready()).toMatchObject({ code: 503, status: 'not-ready' })
  })
})
