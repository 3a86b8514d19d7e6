import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** A certificate with its key, as files in PEM. */
export interface Certificate {
  certFile: string
  keyFile: string
  /** SHA-256 over the certificate, as openssl prints it: pairs of hex digits between colons. */
  fingerprint: string
}

export interface Certificates {
  /** The certificate, in PEM, of the authority that signed all of them. */
  ca: string
  /** For localhost and the addresses 127.0.0.1 and 127.0.0.2. */
  good: Certificate
  /** As `good`, but over. */
  expired: Certificate
  /** For another host. */
  wrongHost: Certificate
}

const HERE = 'DNS:localhost,IP:127.0.0.1,IP:127.0.0.2'
const P256 = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']

/** Makes an authority of our own and what it signs, in `folder`; nothing on this machine trusts it. */
export async function makeCertificates(folder: string): Promise<Certificates> {
  const openssl = (...args: string[]) => run('openssl', args, { cwd: folder })
  const name = (common: string) => ['-subj', `/O=Longshore Test/CN=${common}`]
  await openssl('req', '-x509', ...P256, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', ...name('Authority'))

  async function sign(file: string, names: string, days: number): Promise<Certificate> {
    const [certFile, keyFile] = [join(folder, `${file}.pem`), join(folder, `${file}.key`)]
    await writeFile(join(folder, `${file}.ext`), `subjectAltName=${names}\nextendedKeyUsage=serverAuth\n`)
    await openssl('req', ...P256, '-keyout', keyFile, '-out', `${file}.csr`, ...name(file))
    const authority = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-set_serial', `0x${Buffer.from(file).toString('hex')}`]
    const request = ['-in', `${file}.csr`, '-out', certFile, '-extfile', `${file}.ext`, '-days', String(days)]
    await openssl('x509', '-req', ...authority, ...request)
    const { stdout } = await openssl('x509', '-in', certFile, '-noout', '-fingerprint', '-sha256')
    return { certFile, keyFile, fingerprint: stdout.trim().replace(/^.*=/, '') }
  }
  const [good, expired, wrongHost] = await Promise.all([
    sign('good', HERE, 2),
    sign('expired', HERE, -1),
    sign('wrong-host', 'DNS:elsewhere.test', 2),
  ])
  return { ca: await readFile(join(folder, 'ca.pem'), 'utf8'), good, expired, wrongHost }
}
