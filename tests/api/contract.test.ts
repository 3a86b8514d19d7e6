import { afterAll, beforeAll, expect, test } from 'bun:test'
import type { Scope } from '../../src/task/scope.ts'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

interface Schema {
  type?: string
  const?: unknown
  enum?: unknown[]
  anyOf?: Schema[]
  items?: Schema
  required?: string[]
  properties?: Record<string, Schema>
}

let api: ApiUnderTest
// biome-ignore lint/suspicious/noExplicitAny: the document is looked into freely
let paths: any
beforeAll(async () => {
  api = await apiUnderTest('server')
  paths = (await api.call('GET', '/openapi.json')).json.paths
})
afterAll(() => api.close())

/** Where `value` is not what `schema` says: a wrong type, a missing field, or one that the schema does not name. */
function misfits(schema: Schema, value: unknown, at = ''): string[] {
  if (schema.anyOf) {
    const branches = schema.anyOf.map((branch) => misfits(branch, value, at))
    return branches.some((found) => found.length === 0) ? [] : [`${at}: fits no branch`]
  }
  if ('const' in schema) return schema.const === value ? [] : [`${at}: is not ${JSON.stringify(schema.const)}`]
  if (schema.enum) return schema.enum.includes(value) ? [] : [`${at}: is not in the enum`]
  const type =
    value === null ? 'null' : Array.isArray(value) ? 'array' : Number.isInteger(value) ? 'integer' : typeof value
  if (schema.type && schema.type !== type && !(schema.type === 'number' && type === 'integer'))
    return [`${at}: is ${type}, not ${schema.type}`]
  if (Array.isArray(value)) return value.flatMap((item, i) => misfits(schema.items ?? {}, item, `${at}/${i}`))
  if (type !== 'object' || !schema.properties) return []
  const { properties, required = [] } = schema
  const fields = Object.entries(value as object)
  return [
    ...required.filter((name) => !fields.some(([field]) => field === name)).map((name) => `${at}/${name}: is missing`),
    ...fields.flatMap(([name, field]) =>
      properties[name] ? misfits(properties[name], field, `${at}/${name}`) : [`${at}/${name}: is not documented`],
    ),
  ]
}

function schemaOf(method: string, path: string, status: number): Schema {
  const schema = paths[path]?.[method.toLowerCase()]?.responses[status]?.content?.['application/json']?.schema
  if (!schema) throw new Error(`${method} ${path} documents no JSON for ${status}`)
  return schema
}

test('what routes answer is what the document says', async () => {
  const { pool } = api.test.database
  const check = async (method: string, documented: string, path: string, json?: unknown, as: Scope = 'admin') => {
    const answer = await api.call(method, path, json === undefined ? {} : { json, as })
    const found = misfits(schemaOf(method, documented, answer.status), answer.json)
    expect([method, path, found]).toEqual([method, path, []])
    return answer.json
  }
  await check('PUT', '/api/v1/queues/{name}', '/api/v1/queues/q', {})
  await check('PUT', '/api/v1/queues/{name}', '/api/v1/queues/q', {
    retry: { maxAttempts: 1, backoff: { kind: 'fixed', base: '1s' } },
  })
  await pool.query(`insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin)
    values (gen_random_uuid(), 'q', '{"a":[1]}', 0, now(), 1, 'api')`)
  await pool.query(`insert into nodes (id, name, version, roles, state)
    values (gen_random_uuid(), 'n', '0', '{api}', '{"broker":"in-process","consumers":[]}')`)
  const consumer = await check('POST', '/api/v1/consumers', '/api/v1/consumers', {
    queue: 'q',
    target: { type: 'noop' },
  })
  await check('GET', '/api/v1/queues', '/api/v1/queues')
  await check('GET', '/api/v1/queues/{name}', '/api/v1/queues/q')
  await check('GET', '/api/v1/queues/{name}/messages', '/api/v1/queues/q/messages')
  await check('POST', '/api/v1/queues/{name}/pause', '/api/v1/queues/q/pause')
  await check('POST', '/api/v1/queues/{name}/resume', '/api/v1/queues/q/resume')
  await check('POST', '/api/v1/queues/{name}/purge', '/api/v1/queues/q/purge', { confirm: 'q' })
  await check('POST', '/api/v1/queues/{name}/resend', '/api/v1/queues/q/resend')
  await check('PUT', '/api/v1/exchanges/{name}', '/api/v1/exchanges/x', { type: 'topic' })
  await check('PUT', '/api/v1/exchanges/{name}/bindings', '/api/v1/exchanges/x/bindings', {
    queue: 'q',
    routingKey: '#',
  })
  await check('GET', '/api/v1/exchanges', '/api/v1/exchanges')
  await check('GET', '/api/v1/exchanges/{name}', '/api/v1/exchanges/x')
  await check('GET', '/api/v1/consumers', '/api/v1/consumers')
  await check('GET', '/api/v1/consumers/{id}', `/api/v1/consumers/${consumer.id}`)
  await check('PATCH', '/api/v1/consumers/{id}', `/api/v1/consumers/${consumer.id}`, { concurrency: 2 })
  await check('POST', '/api/v1/keys', '/api/v1/keys', { name: 'k', scopes: ['read', 'work'] })
  await check('GET', '/api/v1/keys', '/api/v1/keys')
  await check('GET', '/api/v1/nodes', '/api/v1/nodes')
  await check('GET', '/api/v1/connections', '/api/v1/connections')
  await check('GET', '/api/v1/accounting', '/api/v1/accounting')
  const worker = (call: string, json: object) => check('POST', `/api/v1/${call}`, `/api/v1/${call}`, json, 'work')
  const node = '019b7a3e-5c00-7000-8000-000000000010'
  await worker('beats', { node, join: { name: 'w', version: '0' }, topology: null })
  const { rows } =
    await pool.query(`insert into tasks (id, queue, payload, priority, due_at, max_attempts, origin, status)
    values (gen_random_uuid(), 'q', '{"a":1}', 0, now(), 1, 'api', 'queued') returning id`)
  const deliveries = [rows[0].id, node].map((id) => ({ kind: 'task', id, attempt: 1 }))
  await worker('claims', { claimId: node, node, queue: 'q', deliveries })
  const settlements = deliveries.map(({ id }) => ({ id, attempt: 1, outcome: { kind: 'succeeded' } }))
  await worker('beats', { node })
  await worker('outcomes', { node, settlements })
  await worker('tokens', { consumer: consumer.id, count: 2 })
  await worker('locks', { node, name: 'a', hold: true })
  const place = {
    protocol: 'sftp',
    host: '127.0.0.1',
    port: 1,
    auth: { kind: 'password', username: 'u', password: 'p' },
  }
  await check('POST', '/api/v1/sources', '/api/v1/sources', {
    ...{ name: 's', ...place, cron: '0 0 1 1 *', deliver: { queue: 'q' } },
    limits: { connectTimeout: '1s' },
  })
  await check('GET', '/api/v1/sources', '/api/v1/sources')
  await check('GET', '/api/v1/sources/{id}', '/api/v1/sources/s')
  await check('PATCH', '/api/v1/sources/{id}', '/api/v1/sources/s', { directory: '/in', after: null })
  await check('POST', '/api/v1/sources/{id}/test', '/api/v1/sources/s/test')
  await check('POST', '/api/v1/sources/{id}/poll', '/api/v1/sources/s/poll')
  await check('POST', '/api/v1/sources/{id}/pause', '/api/v1/sources/s/pause')
  await check('POST', '/api/v1/sources/{id}/resume', '/api/v1/sources/s/resume')
  const file = '019b7a3e-5c00-7000-8000-000000000020'
  await pool.query(
    `insert into files (id, source, path, status) select '${file}', id, '/in/a.csv', 'ready' from sources`,
  )
  await pool.query(`insert into rejects (file, number, line, reason, raw) values ('${file}', 1, 2, 'bad', 'x')`)
  const ofFile = (call: string, method = 'POST') =>
    check(method, `/api/v1/sources/{id}/files/{file}${call}`, `/api/v1/sources/s/files/${file}${call}`)
  await check('GET', '/api/v1/sources/{id}/files', '/api/v1/sources/s/files')
  await ofFile('', 'GET')
  await ofFile('/rejects', 'GET')
  await ofFile('/pause')
  await ofFile('/resume')
  await ofFile('/cancel')
  await ofFile('/rerun')
  await check('POST', '/createQueue', '/createQueue', { queueName: 'old' })
  await check('POST', '/createQueue', '/createQueue', { queueName: 'old' })
  await check('POST', '/getQueueInfo', '/getQueueInfo', { queueName: 'old' })
  await check('GET', '/getQueues', '/getQueues')
  const { consumerName } = await check('POST', '/createConsumer', '/createConsumer', { queueName: 'old' })
  await check('GET', '/getConsumers', '/getConsumers')
  await check('GET', '/getConsumers/{queueName}', '/getConsumers/old')
  await check('POST', '/deleteConsumer', '/deleteConsumer', { consumerName })
  await check('GET', '/getConnections', '/getConnections')
  await check('GET', '/api/jobs', '/api/jobs')
  await check('GET', '/health/live', '/health/live')
  await check('GET', '/health/ready', '/health/ready')
})

interface Documented {
  content?: Record<string, { schema: Schema; example?: unknown }>
}

test('every example in the document fits its own schema', () => {
  const found: string[] = []
  type Operations = Record<string, { requestBody?: Documented; responses: Record<string, Documented> }>
  for (const [path, methods] of Object.entries(paths as Record<string, Operations>)) {
    for (const [method, { requestBody = {}, responses }] of Object.entries(methods)) {
      for (const { content } of [requestBody, ...Object.values(responses)]) {
        const json = content?.['application/json']
        if (json?.example !== undefined) found.push(...misfits(json.schema, json.example, `${method} ${path} `))
      }
    }
  }
  expect(found).toEqual([])
})
