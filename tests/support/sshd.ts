import { execFile } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { type FileServer, servedFolder, servers } from './ftp-servers.ts'
import { freePorts, startServer } from './server-process.ts'

const run = promisify(execFile)

/** An SFTP server with what a client may know of it. */
export interface SftpServer extends FileServer {
  /** `SHA256:...` of its host keys. */
  readonly hostKeys: { ed25519: string; rsa: string }
  /** A key that may log in: in clear, and the same with a passphrase. */
  readonly key: { plain: string; locked: string; passphrase: string }
}

export interface SshdOptions {
  /** What it lets in by; both by default. */
  auth?: 'password' | 'key' | 'keyboard-interactive'
  /** What answers for SFTP; by default sshd itself. */
  subsystem?: string
}

/** OpenSSH's sshd, for SFTP and the servers' user alone. Lives in `home`; ends with its disposal. */
export async function startSshd(
  home: string,
  { auth = 'password', subsystem = 'internal-sftp' }: SshdOptions = {},
): Promise<SftpServer> {
  const { sshd, user } = servers()
  const place = await servedFolder(home, 'sshd')
  const file = (name: string) => join(place.home, name)
  const makeKey = (name: string, ...options: string[]) =>
    run('ssh-keygen', ['-q', '-f', file(name), '-C', '', ...options])
  const passphrase = 'open sesame'
  // Made by Debian's service, which does not run here; without it sshd does not start.
  await mkdir('/run/sshd', { recursive: true, mode: 0o755 })
  await Promise.all([
    makeKey('host-ed25519', '-t', 'ed25519', '-N', ''),
    makeKey('host-rsa', '-t', 'rsa', '-b', '2048', '-N', ''),
    makeKey('user-key', '-t', 'ed25519', '-N', ''),
  ])
  const plain = await readFile(file('user-key'), 'utf8')
  await writeFile(file('authorized'), await readFile(file('user-key.pub')), { mode: 0o644 })
  await run('ssh-keygen', ['-q', '-p', '-f', file('user-key'), '-P', '', '-N', passphrase])
  const port = await freePorts(1)
  const lines = [
    `ListenAddress 127.0.0.1:${port}`,
    `HostKey ${file('host-ed25519')}`,
    `HostKey ${file('host-rsa')}`,
    `AuthorizedKeysFile ${file('authorized')}`,
    `PidFile ${file('pid')}`,
    `AllowUsers ${user.name}`,
    'StrictModes no',
    // Only PAM asks questions; without it nothing beside this file has a say.
    `UsePAM ${auth === 'keyboard-interactive' ? 'yes' : 'no'}`,
    'LogLevel ERROR',
    `Subsystem sftp ${subsystem}`,
    `ForceCommand ${subsystem}`,
    // A test connects more often in a second than a server on the internet would put up with.
    'MaxStartups 200',
    `PasswordAuthentication ${auth === 'password' ? 'yes' : 'no'}`,
    `PubkeyAuthentication ${auth === 'key' ? 'yes' : 'no'}`,
    `KbdInteractiveAuthentication ${auth === 'keyboard-interactive' ? 'yes' : 'no'}`,
  ]
  await writeFile(file('sshd_config'), `${lines.join('\n')}\n`)
  const process = await startServer(sshd, ['-D', '-e', '-f', file('sshd_config')], port, place.home)
  const login =
    auth === 'key'
      ? ({ kind: 'key', username: user.name, privateKey: plain } as const)
      : ({ kind: 'password', username: user.name, password: user.password } as const)
  return {
    name: `OpenSSH, ${auth}`,
    port,
    dataPorts: [],
    folder: place.folder,
    root: place.folder,
    connection: {
      protocol: 'sftp',
      host: '127.0.0.1',
      port,
      auth: login,
      tls: { verify: true, minVersion: 'TLSv1.2' },
      passiveHost: 'control',
    },
    process,
    hostKeys: { ed25519: await fingerprint(file('host-ed25519.pub')), rsa: await fingerprint(file('host-rsa.pub')) },
    key: { plain, locked: await readFile(file('user-key'), 'utf8'), passphrase },
    [Symbol.asyncDispose]: () => process.kill(),
  }
}

async function fingerprint(publicKey: string): Promise<string> {
  const { stdout } = await run('ssh-keygen', ['-l', '-E', 'sha256', '-f', publicKey])
  return stdout.split(' ')[1] ?? ''
}
