import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { type Sink, startSink } from '../support/sink.ts'
import { attemptHttpWith } from './http-attempt.ts'

let folder: string
let certFile: string
let sink: Sink
/** Certificates that the system does not trust: valid for good.test, and one that has expired. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'longshore-tls-'))
  certFile = await certificate('good', 2)
  sink = await startSink({ tls: await pair('good') })
})
afterAll(async () => {
  await sink?.close()
  await rm(folder, { recursive: true, force: true })
})

async function openssl(...args: string[]): Promise<void> {
  const child = Bun.spawn(['openssl', ...args], { stdout: 'ignore', stderr: 'pipe' })
  if ((await child.exited) !== 0) throw new Error(`openssl ${args[0]}: ${await new Response(child.stderr).text()}`)
}

/** Makes `<name>.key` and `<name>.pem`, self-signed for good.test; returns the path of the certificate. */
async function certificate(name: string, days: number): Promise<string> {
  const [key, request, extensions, file] = ['key', 'csr', 'ext', 'pem'].map((end) =>
    join(folder, `${name}.${end}`),
  ) as [string, string, string, string]
  await writeFile(extensions, 'subjectAltName=DNS:good.test')
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  await openssl('req', '-new', ...curve, '-subj', '/CN=good.test', '-keyout', key, '-out', request)
  await openssl(
    'x509',
    '-req',
    '-in',
    request,
    '-signkey',
    key,
    '-days',
    String(days),
    '-extfile',
    extensions,
    '-out',
    file,
  )
  return file
}
const pair = async (name: string) => ({
  key: await readFile(join(folder, `${name}.key`), 'utf8'),
  cert: await readFile(join(folder, `${name}.pem`), 'utf8'),
})
const names = { 'good.test': ['127.0.0.1'], 'good.test.': ['127.0.0.1'], 'bad.test': ['127.0.0.1'] }

describe('certificates are checked against the name in the URL, though the connection goes to a checked address', () => {
  test('one that is trusted and has the name is accepted, also for the name with its dot', async () => {
    const asked: unknown[] = []
    sink.reply = () => (response, socket) => {
      asked.push((socket as TLSSocket & { servername?: string }).servername)
      response.end()
    }
    for (const host of ['good.test', 'good.test.']) {
      const outcome = await attemptHttpWith({ NODE_EXTRA_CA_CERTS: certFile }, { url: sink.url('/', host) }, names)
      expect(outcome).toMatchObject({ kind: 'succeeded' })
    }
    expect(asked).toEqual(['good.test', 'good.test'])
  })

  test.each(['bad.test', '127.0.0.1'])('one that has not the name %s is refused and tried again', async (host) => {
    const before = sink.requests.length
    const outcome = await attemptHttpWith({ NODE_EXTRA_CA_CERTS: certFile }, { url: sink.url('/', host) }, names)
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
    expect(outcome).toHaveProperty(
      'error',
      expect.stringMatching(/certificate is not accepted: .*\(ERR_TLS_CERT_ALTNAME_INVALID\)/),
    )
    expect(sink.requests.length).toBe(before)
  })

  test('a self-signed one is refused, even with NODE_TLS_REJECT_UNAUTHORIZED=0', async () => {
    for (const env of [{}, { NODE_TLS_REJECT_UNAUTHORIZED: '0' }]) {
      const outcome = await attemptHttpWith(env as Record<string, string>, { url: sink.url('/', 'good.test') }, names)
      expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
      expect(outcome).toHaveProperty(
        'error',
        expect.stringContaining('certificate is not accepted: self signed certificate'),
      )
    }
  })

  test('an expired one is refused', async () => {
    const expired = await certificate('expired', -1)
    await using stale = await startSink({ tls: await pair('expired') })
    const outcome = await attemptHttpWith({ NODE_EXTRA_CA_CERTS: expired }, { url: stale.url('/', 'good.test') }, names)
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
    expect(outcome).toHaveProperty('error', expect.stringContaining('expired'))
  })

  test('a receiver that speaks no TLS is tried again', async () => {
    await using plain = await startSink()
    const outcome = await attemptHttpWith({}, { url: `https://127.0.0.1:${plain.port}/` })
    expect(outcome).toMatchObject({ kind: 'failed', retryable: true })
  })
})

test('proxy variables are not honoured', async () => {
  await using trap = await startSink()
  await using receiver = await startSink()
  const proxy = trap.url()
  const env = Object.fromEntries(
    ['HTTP_PROXY', 'HTTPS_PROXY', 'ALL_PROXY', 'http_proxy', 'https_proxy', 'all_proxy'].map((name) => [name, proxy]),
  )
  const withProxy = { ...env, NO_PROXY: '', no_proxy: '', NODE_USE_ENV_PROXY: '1', NODE_EXTRA_CA_CERTS: certFile }
  for (const url of [receiver.url(), receiver.url('/', 'good.test'), sink.url('/', 'good.test')]) {
    expect(await attemptHttpWith(withProxy, { url }, names)).toMatchObject({ kind: 'succeeded' })
  }
  expect(receiver.requests).toHaveLength(2)
  expect(trap.connections.opened).toBe(0)
  // The trap would have caught a client that honours them.
  const child = Bun.spawn([process.execPath, '-e', `await fetch('${receiver.url()}')`], { env: { ...withProxy } })
  await child.exited
  expect(trap.connections.opened).toBeGreaterThan(0)
})
