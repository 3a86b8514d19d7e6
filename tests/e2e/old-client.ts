import type { NodeProcess } from '../support/node-process.ts'

export interface OldAnswer {
  status: number
  headers: Headers
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came back
  body: any
}

/** What a client of an older system sends: JSON under any name or none, and its key as the password of HTTP Basic. */
export interface OldCall {
  json?: unknown
  body?: string | Uint8Array<ArrayBuffer>
  type?: string
  /** null: without a key. */
  key?: string | null
}

/** Calls the routes at the root of a node. */
export async function callOld(
  node: NodeProcess,
  method: string,
  path: string,
  { json, body, type, key }: OldCall = {},
): Promise<OldAnswer> {
  const password = key === undefined ? node.headers().authorization?.replace('Bearer ', '') : key
  const response = await fetch((await node.listening) + path, {
    method,
    headers: {
      ...(password !== null && { authorization: `Basic ${btoa(`old-client:${password}`)}` }),
      ...(type !== undefined && { 'content-type': type }),
    },
    ...(json !== undefined ? { body: JSON.stringify(json) } : body !== undefined ? { body } : {}),
  })
  const text = await response.text()
  const isJson = response.headers.get('content-type')?.includes('json')
  return { status: response.status, headers: response.headers, body: isJson && text !== '' ? JSON.parse(text) : text }
}

/** As `callOld`, when any other status than `expected` is a failure. */
export async function expectOld(
  node: NodeProcess,
  expected: number,
  method: string,
  path: string,
  options?: OldCall,
): Promise<OldAnswer['body']> {
  const answer = await callOld(node, method, path, options)
  if (answer.status === expected) return answer.body
  throw new Error(`${method} ${path} answered ${answer.status}, not ${expected}: ${JSON.stringify(answer.body)}`)
}
