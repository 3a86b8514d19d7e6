import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** A certificate authority of a test's own. Paths are of PEM files. */
export interface TestAuthority {
  readonly caFile: string
  /** A certificate for one host name, for two days. */
  issue(host: string): Promise<{ cert: string; key: string }>
  remove(): Promise<void>
}

export async function testAuthority(): Promise<TestAuthority> {
  const folder = await mkdtemp(join(tmpdir(), 'longshore-ca-'))
  const file = (name: string) => join(folder, name)
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const ca = ['-subj', '/CN=test authority', '-days', '2', '-keyout', file('ca.key'), '-out', file('ca.pem')]
  await openssl('req', '-x509', ...curve, ...ca)
  return {
    caFile: file('ca.pem'),
    async issue(host) {
      const [key, request, extensions, cert] = ['key', 'csr', 'ext', 'pem'].map((end) => file(`${host}.${end}`)) as [
        string,
        string,
        string,
        string,
      ]
      await writeFile(extensions, `subjectAltName=DNS:${host}`)
      await openssl('req', '-new', ...curve, '-subj', `/CN=${host}`, '-keyout', key, '-out', request)
      const signer = ['-CA', file('ca.pem'), '-CAkey', file('ca.key'), '-CAcreateserial']
      await openssl('x509', '-req', '-in', request, ...signer, '-days', '2', '-extfile', extensions, '-out', cert)
      return { cert, key }
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  }
}

async function openssl(...args: string[]): Promise<void> {
  const child = Bun.spawn(['openssl', ...args], { stdout: 'ignore', stderr: 'pipe' })
  if ((await child.exited) !== 0) throw new Error(`openssl ${args[0]}: ${await new Response(child.stderr).text()}`)
}
