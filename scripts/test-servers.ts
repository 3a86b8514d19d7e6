/**
 * The FTP and SSH servers that tests run against: Debian's vsftpd and openssh-server by apt, and pure-ftpd, which Debian does
 * not install beside another FTP server, unpacked into a folder of its own. As a command (root on Debian): brings what is
 * missing, and starts nothing.
 */
import { execFileSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Where the servers' programs are, and the unix user whom SSH lets in and to whom all served files belong. */
export interface TestServers {
  vsftpd: string
  sshd: string
  pureFtpd: string
  purePw: string
  user: { name: string; uid: number; gid: number; password: string }
}

export type FoundServers = { servers: TestServers } | { servers?: undefined; reason: string }

const HOME = '/var/lib/longshore-test'
const PURE = join(HOME, 'pure-ftpd')
const PASSWORD_FILE = join(HOME, 'password')
const USER = 'longshore-test'
const PROGRAMS = {
  vsftpd: '/usr/sbin/vsftpd',
  sshd: '/usr/sbin/sshd',
  pureFtpd: join(PURE, 'usr/sbin/pure-ftpd'),
  purePw: join(PURE, 'usr/bin/pure-pw'),
}
const PACKAGES = { vsftpd: PROGRAMS.vsftpd, 'openssh-server': PROGRAMS.sshd, openssl: '/usr/bin/openssl' }
const POLICY = '/usr/sbin/policy-rc.d'

/** The servers, when all of them can be started by this process. */
export function testServers(): FoundServers {
  if (process.getuid?.() !== 0) return { reason: 'FTP and SSH servers need root' }
  const missing = [...Object.values(PROGRAMS), PASSWORD_FILE].filter((path) => !existsSync(path))
  const entry = readFileSync('/etc/passwd', 'utf8').match(new RegExp(`^${USER}:[^:]*:(\\d+):(\\d+):`, 'm'))
  if (missing.length > 0 || !entry) {
    return { reason: `${missing.join(', ') || `the user ${USER}`} is missing: bun scripts/test-servers.ts` }
  }
  const password = readFileSync(PASSWORD_FILE, 'utf8').trim()
  return { servers: { ...PROGRAMS, user: { name: USER, uid: Number(entry[1]), gid: Number(entry[2]), password } } }
}

function install(): void {
  mkdirSync(HOME, { recursive: true, mode: 0o755 })
  const packages: string[] = Object.entries(PACKAGES).flatMap(([name, path]) => (existsSync(path) ? [] : [name]))
  const needsPure = !existsSync(PROGRAMS.pureFtpd) || !existsSync(PROGRAMS.purePw)
  if (needsPure) packages.push('libsodium23', 'libcap2', 'libpam0g')
  if (packages.length > 0) installPackages(packages)
  if (needsPure) unpackPureFtpd()
  if (testServers().servers === undefined) makeUser()
}

function installPackages(packages: string[]): void {
  // Debian starts a server as soon as it is installed, unless this file says no.
  const mayStart = !existsSync(POLICY)
  if (mayStart) writeFileSync(POLICY, '#!/bin/sh\nexit 101\n', { mode: 0o755 })
  try {
    run('apt-get', ['update', '-q'])
    run('apt-get', ['install', '-yq', '--no-upgrade', '--no-install-recommends', ...packages])
  } finally {
    if (mayStart) rmSync(POLICY)
  }
}

function unpackPureFtpd(): void {
  const folder = mkdtempSync(join(tmpdir(), 'longshore-pure-ftpd-'))
  try {
    // apt downloads as a user of its own.
    chmodSync(folder, 0o777)
    run('apt-get', ['download', '-q', 'pure-ftpd', 'pure-ftpd-common'], folder)
    for (const file of readdirSync(folder)) run('dpkg-deb', ['-x', join(folder, file), PURE])
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** A user who can do nothing but log in for SFTP, with a password that only root can read. */
function makeUser(): void {
  if (!readFileSync('/etc/passwd', 'utf8').includes(`\n${USER}:`)) {
    run('useradd', [
      '--system',
      '--user-group',
      '--no-create-home',
      '--home-dir',
      HOME,
      '-s',
      '/usr/sbin/nologin',
      USER,
    ])
  }
  const password = randomBytes(18).toString('base64url')
  writeFileSync(PASSWORD_FILE, `${password}\n`, { mode: 0o600 })
  execFileSync('chpasswd', { input: `${USER}:${password}\n` })
}

function run(program: string, args: string[], cwd = '/'): void {
  execFileSync(program, args, {
    cwd,
    stdio: ['ignore', process.stderr.fd, process.stderr.fd],
    env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
  })
}

if (import.meta.main) {
  install()
  const found = testServers()
  if (found.servers === undefined) {
    console.error(found.reason)
    process.exit(1)
  }
}
