import { execFile } from 'node:child_process'
import { chown, mkdir, mkdtemp, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { testServers } from '../../scripts/test-servers.ts'
import type { RemoteConnection } from '../../src/files/remote-files.ts'
import type { Certificate } from './certificates.ts'
import { freePorts, type ServerProcess, startServer } from './server-process.ts'

const run = promisify(execFile)
/** pure-ftpd lets in half as many clients. */
const PASSIVE_PORTS = 60

/** A file server of its own, with an empty folder to serve. */
export interface FileServer extends AsyncDisposable {
  readonly name: string
  readonly port: number
  /** What its data connections come to; none for SFTP. */
  readonly dataPorts: readonly number[]
  /** The folder on this machine. */
  readonly folder: string
  /** The same folder as a client writes it. */
  readonly root: string
  /** How to connect and log in; a TLS server's certificate is not trusted by it. */
  readonly connection: RemoteConnection
  readonly process: ServerProcess
}

export interface FtpServerOptions {
  /** By default without TLS. */
  tls?: { certificate: Certificate; mode: 'explicit' | 'implicit' }
}

/** vsftpd for one user, with session reuse required where it has TLS. Lives in `home`; ends with its disposal. */
export async function startVsftpd(home: string, { tls }: FtpServerOptions = {}): Promise<FileServer> {
  const { vsftpd, user } = servers()
  const place = await servedFolder(home, 'vsftpd')
  const port = await freePorts(PASSIVE_PORTS + 1)
  const password = 'correct horse'
  // Its only user without an account on this machine: an anonymous one whose "e-mail address" is a password.
  const passwords = join(place.home, 'passwords')
  await writeFile(passwords, `${password}\n`)
  // Debian's own is made by the service, which does not run here.
  const empty = join(place.home, 'empty')
  await mkdir(empty)
  const settings = {
    listen: 'YES',
    secure_chroot_dir: empty,
    listen_address: '127.0.0.1',
    listen_port: port,
    background: 'NO',
    pasv_min_port: port + 1,
    pasv_max_port: port + PASSIVE_PORTS,
    anonymous_enable: 'YES',
    local_enable: 'NO',
    secure_email_list_enable: 'YES',
    email_password_file: passwords,
    ftp_username: user.name,
    // It refuses a root that its user can write to.
    anon_root: place.home,
    anon_world_readable_only: 'NO',
    write_enable: 'YES',
    anon_upload_enable: 'YES',
    anon_mkdir_write_enable: 'YES',
    anon_other_write_enable: 'YES',
    seccomp_sandbox: 'NO',
    delay_failed_login: 0,
    xferlog_enable: 'NO',
    ...(tls && {
      ssl_enable: 'YES',
      implicit_ssl: tls.mode === 'implicit' ? 'YES' : 'NO',
      allow_anon_ssl: 'YES',
      force_anon_logins_ssl: 'YES',
      force_anon_data_ssl: 'YES',
      require_ssl_reuse: 'YES',
      ssl_ciphers: 'HIGH',
      rsa_cert_file: tls.certificate.certFile,
      rsa_private_key_file: tls.certificate.keyFile,
    }),
  }
  const config = join(place.home, 'vsftpd.conf')
  await writeFile(
    config,
    `${Object.entries(settings)
      .map((pair) => pair.join('='))
      .join('\n')}\n`,
  )
  const process = await startServer(vsftpd, [config], port, place.home)
  return describe('vsftpd', place.folder, '/files', port, process, tls, { username: 'anonymous', password })
}

/** pure-ftpd for one virtual user, whose listings end at `listLimit`. Lives in `home`; ends with its disposal. */
export async function startPureFtpd(
  home: string,
  { tls, listLimit = 1_000_000 }: FtpServerOptions & { listLimit?: number } = {},
): Promise<FileServer> {
  const { pureFtpd, purePw, user } = servers()
  if (tls?.mode === 'implicit') throw new Error("Debian's pure-ftpd has no implicit TLS")
  const place = await servedFolder(home, 'pure-ftpd')
  const port = await freePorts(PASSIVE_PORTS + 1)
  const login = { username: 'joe', password: 'correct horse' }
  const [passwords, database] = [join(place.home, 'passwords'), join(place.home, 'passwords.pdb')]
  // Not by `pure-pw useradd`, whose hash takes seconds to check at every login.
  const hash = (await run('openssl', ['passwd', '-6', login.password])).stdout.trim()
  const account = [login.username, hash, user.uid, user.gid, '', `${place.folder}/./`, ...Array(12).fill('')]
  await writeFile(passwords, `${account.join(':')}\n`)
  await run(purePw, ['mkdb', database, '-f', passwords])
  const args = ['-S', `127.0.0.1,${port}`, '-p', `${port + 1}:${port + PASSIVE_PORTS}`, '-l', `puredb:${database}`]
  args.push('-A', '-E', '-H', '-D', '-u', '1', '-L', `${listLimit}:20`, '-g', join(place.home, 'pid'))
  if (tls) {
    args.push('-Y', '2', '--certfile', await inOneFile(place.home, tls.certificate))
  }
  const process = await startServer(pureFtpd, args, port, place.home)
  return describe('pure-ftpd', place.folder, '/', port, process, tls, login)
}

/** The servers' programs and user; throws with what to do when they are not there. */
export function servers() {
  const found = testServers()
  if (found.servers === undefined) throw new Error(found.reason)
  return found.servers
}

/** A new folder for a server in `home`, and in it the one that it serves, which belongs to the servers' user. */
export async function servedFolder(home: string, name: string): Promise<{ home: string; folder: string }> {
  const { user } = servers()
  const own = await mkdtemp(join(home, `${name}-`))
  // The server's user has to get through.
  await run('chmod', ['755', own])
  const folder = join(own, 'files')
  await mkdir(folder, { mode: 0o755 })
  await chown(folder, user.uid, user.gid)
  return { home: own, folder }
}

async function inOneFile(home: string, { certFile, keyFile }: Certificate): Promise<string> {
  const both = join(home, 'both.pem')
  await run('sh', ['-c', 'cat "$0" "$1" > "$2" && chmod 600 "$2"', keyFile, certFile, both])
  return both
}

function describe(
  name: string,
  folder: string,
  root: string,
  port: number,
  process: ServerProcess,
  tls: FtpServerOptions['tls'],
  login: { username: string; password: string },
): FileServer {
  const protocol = tls === undefined ? 'ftp' : tls.mode === 'implicit' ? 'ftps-implicit' : 'ftps'
  return {
    name: `${name}, ${protocol}`,
    port,
    dataPorts: Array.from({ length: PASSIVE_PORTS }, (_, index) => port + 1 + index),
    folder,
    root,
    connection: {
      protocol,
      host: '127.0.0.1',
      port,
      auth: { kind: 'password', ...login },
      tls: { verify: true, minVersion: 'TLSv1.2' },
      passiveHost: 'control',
    },
    process,
    [Symbol.asyncDispose]: () => process.kill(),
  }
}
