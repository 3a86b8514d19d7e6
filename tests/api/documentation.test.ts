import { afterAll, beforeAll, expect, test } from 'bun:test'
import { Validator } from '@seriousme/openapi-schema-validator'
import { type ApiUnderTest, apiUnderTest } from './api-under-test.ts'

interface Operation {
  operationId?: string
  summary?: string
  description?: string
  tags?: string[]
  security?: object[]
  parameters?: { name: string; in: string; required: boolean; schema: object; description?: string }[]
  requestBody?: { content: Record<string, { schema?: object; example?: unknown }> }
  responses?: Record<string, { description?: string; content?: Record<string, { schema?: object; example?: unknown }> }>
}

let api: ApiUnderTest
// biome-ignore lint/suspicious/noExplicitAny: a document of any shape is what is tested
let document: any
let operations: [string, Operation][]
beforeAll(async () => {
  api = await apiUnderTest('server')
  document = (await api.call('GET', '/openapi.json', { as: 'read' })).json
  operations = Object.entries(document.paths as Record<string, Record<string, Operation>>).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, Operation] => [`${method} ${path}`, operation]),
  )
})
afterAll(() => api.close())

test('the document is valid OpenAPI 3.1', async () => {
  expect(document.openapi).toStartWith('3.1.')
  expect(await new Validator().validate(document)).toMatchObject({ valid: true })
})

test('every route has a summary, a description, a known tag, examples, and the problems it can answer with', () => {
  const tags = document.tags.map((tag: { name: string }) => tag.name)
  const wanting: string[] = []
  for (const [name, operation] of operations) {
    const says = (what: string, ok: unknown) => ok || wanting.push(`${name}: ${what}`)
    says('summary', operation.summary)
    says('description', operation.description)
    says('tag', tags.includes(operation.tags?.[0]))
    for (const media of Object.values(operation.requestBody?.content ?? {})) says('body schema', media.schema)
    says(
      'body example',
      !operation.requestBody || operation.requestBody.content['application/json']?.example !== undefined,
    )
    for (const [status, response] of Object.entries(operation.responses ?? {})) {
      says(`${status} description`, response.description)
      const json = response.content?.['application/json']
      if (json) says(`${status} example`, json.example !== undefined)
    }
    const statuses = Object.keys(operation.responses ?? {})
    says(
      'a 2xx',
      statuses.some((status) => status.startsWith('2')),
    )
    if (!name.includes('/health/')) {
      says(
        '401, 403, 503',
        ['401', '403', '503'].every((status) => statuses.includes(status)),
      )
      // The older systems take JSON under any name, and answer 400 to what is not valid, or 422.
      const invalid = ['400', '422'].filter((status) => statuses.includes(status))
      const ofBodies = operation.tags?.[0] === 'compat' ? [...invalid.slice(0, 1), '413'] : ['400', '413', '415', '422']
      if (operation.requestBody)
        says(ofBodies.join(', '), invalid.length > 0 && ofBodies.every((status) => statuses.includes(status)))
    }
    for (const [, parameter] of name.matchAll(/\{(\w+)\}/g)) {
      says(
        `parameter ${parameter}`,
        operation.parameters?.find((p) => p.name === parameter && p.in === 'path' && p.description),
      )
    }
  }
  expect(wanting).toEqual([])
  expect(new Set(operations.map(([, { operationId }]) => operationId)).size).toBe(operations.length)
})

test('every $ref leads somewhere', () => {
  const refs = [...JSON.stringify(document).matchAll(/"\$ref":"#([^"]+)"/g)].map((match) => match[1] as string)
  expect(refs.length).toBeGreaterThan(0)
  for (const ref of new Set(refs)) {
    const found = ref
      .slice(1)
      .split('/')
      .reduce((at, part) => at?.[part], document)
    expect([ref, typeof found]).toEqual([ref, 'object'])
  }
})

test('keys are sent as Bearer or Basic everywhere but on health', () => {
  expect(Object.keys(document.components.securitySchemes).sort()).toEqual(['basic', 'bearer'])
  const open = operations.filter(([, { security }]) => security?.length === 0).map(([name]) => name)
  expect(open.sort()).toEqual(['get /health/live', 'get /health/ready'])
})

test('the page and its files come from this server alone', async () => {
  const page = await api.call('GET', '/docs')
  expect(page.headers.get('content-type')).toContain('text/html')
  expect(page.text).not.toMatch(/(https?:)?\/\/[a-z]/)
  expect(page.headers.get('content-security-policy')).toContain("default-src 'self'")
  const files = [...page.text.matchAll(/(?:src|href)="(\/[^"]+)"/g)].map((match) => match[1] as string)
  expect(files).toHaveLength(3)
  for (const file of files) {
    const answer = await api.call('GET', file)
    expect([file, answer.status]).toEqual([file, 200])
    expect(answer.text.length).toBeGreaterThan(50)
    const etag = answer.headers.get('etag') ?? ''
    const again = await api.call('GET', file, { headers: { 'if-none-match': etag } })
    expect([file, again.status, again.text]).toEqual([file, 304, ''])
    expect((await api.call('GET', file, { as: null })).status).toBe(401)
  }
  const css = await api.call('GET', '/docs/swagger-ui.css')
  expect(css.text).not.toMatch(/url\(\s*["']?(https?:)?\/\//)
})

test('no other file of the package is given out', async () => {
  for (const name of ['package.json', 'swagger-ui.js', '..%2f..%2fpackage.json', '__proto__', 'constructor']) {
    expect([name, (await api.call('GET', `/docs/${name}`)).status]).toEqual([name, 404])
  }
})
