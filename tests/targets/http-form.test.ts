import { afterAll, beforeAll, beforeEach, expect, test } from 'bun:test'
import { type Sink, startSink } from '../support/sink.ts'
import { attemptHttp } from './http-attempt.ts'

let sink: Sink
beforeAll(async () => {
  sink = await startSink()
})
afterAll(() => sink.close())
beforeEach(() => {
  sink.requests.length = 0
  sink.reply = () => ({})
})

const order = () => ({
  url: sink.url('/orders'),
  format: 'form' as const,
  rename: { clientId: 'client_id', shipmentPackageId: 'shipment_package_id' },
  together: ['clientId', 'shipmentPackageId'],
  fields: { consumerId: 'c-1', secret_key: 'qu1te "secret" & more' },
})
const sent = () => sink.requests.map(({ body }) => Object.fromEntries(new URLSearchParams(body)))

test('fields are sent under the names that the target says, the others under their own', async () => {
  await attemptHttp(order(), { payload: '{"clientId": 12345678901234567890, "shipmentPackageId": "p/7", "note": "ä"}' })
  await attemptHttp(order(), { payload: '{"other": true}' })
  const { fields } = order()
  expect(sent()).toEqual([
    { client_id: '12345678901234567890', shipment_package_id: 'p/7', note: 'ä', ...fields },
    { other: 'true', ...fields },
  ])
})

test.each([
  ['{"clientId":1}', 'the payload lacks shipmentPackageId beside clientId'],
  ['{"shipmentPackageId":"x","clientId":null}', 'the payload lacks clientId beside shipmentPackageId'],
  ['{"clientId":null}', 'the payload lacks clientId, shipmentPackageId'],
  ['{}', 'the payload has no fields'],
])('fields that go together are sent all or not at all: %s', async (payload, reason) => {
  const outcome = await attemptHttp(order(), { payload })
  expect(outcome).toMatchObject({ kind: 'failed', retryable: false, error: expect.stringContaining(reason) })
  expect(sink.requests).toEqual([])
})

test('a message that was no JSON is not taken for a payload of its own', async () => {
  const raw = { payload: '{"raw":"clientId=1"}' }
  expect(await attemptHttp(order(), { ...raw, origin: 'message' })).toMatchObject({
    retryable: false,
    error: expect.stringContaining('the message is not a JSON object'),
  })
  expect(sink.requests).toEqual([])
  expect(await attemptHttp(order(), { ...raw, origin: 'compat' })).toMatchObject({ kind: 'succeeded' })
})

test('a server that repeats the request does not put its secrets into the response that is kept', async () => {
  sink.reply = ({ body, headers }) => ({
    status: 500,
    body: `${body} ${JSON.stringify(Object.fromEntries(new URLSearchParams(body)))} ${headers.authorization} ${headers['x-plain']}`,
  })
  const outcome = await attemptHttp(
    { ...order(), headers: { authorization: 'Bearer hidden-token', 'x-plain': 'shown' } },
    { payload: '{"clientId":1,"shipmentPackageId":2}' },
  )
  const text = JSON.stringify(outcome)
  expect(text).toContain('secret_key=[secret]')
  expect(text).toContain('shown')
  expect(text).not.toContain('qu1te')
  expect(text).not.toContain('hidden-token')
})
