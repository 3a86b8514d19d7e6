import { type ChildProcessByStdio, spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Readable } from 'node:stream'

/*
 * A bare Debian, made once per machine by debootstrap, and processes in it: file system, pids and mounts of their own, the
 * network shared. Layers stack up as in a container image. All mounts live in the namespace of the process and end with it.
 */

const SUITE = 'bookworm'
const MIRROR = 'http://deb.debian.org/debian'
/** Kept between runs: a root file system takes half a minute. */
const CACHE = '/var/cache/longshore-tests'
const NEEDED = ['debootstrap', 'unshare', 'chroot', 'mount']

/** Why no bare root can be had here; undefined when it can. */
export function bareRootRefusal(): string | undefined {
  if (process.platform !== 'linux') return 'it needs Linux'
  if (process.getuid?.() !== 0) return 'it needs root, for chroot and mount'
  const missing = NEEDED.filter((name) => !Bun.which(name, { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' }))
  return missing.length > 0 ? `it needs ${missing.join(', ')} (apt-get install debootstrap)` : undefined
}

/** The folder of the bare Debian (debootstrap, variant minbase): no Bun, no Node, no certificates. */
export function bareRoot(): string {
  return cached(`debian-${SUITE}`, (draft) => mustRun(['debootstrap', '--variant=minbase', SUITE, draft, MIRROR]))
}

/** A folder in the cache, filled once. */
export function cached(name: string, fill: (draft: string) => void): string {
  const folder = join(CACHE, name)
  if (existsSync(folder)) return folder
  mkdirSync(CACHE, { recursive: true })
  const draft = openFolder(`${folder}.draft-`)
  try {
    fill(draft)
    renameSync(draft, folder)
  } catch (error) {
    rmSync(draft, { recursive: true, force: true })
    // Another process may have been faster.
    if (!existsSync(folder)) throw error
  }
  return folder
}

/** A new folder that every user may enter, as a root's top folder has to be. */
export function openFolder(prefix: string): string {
  const folder = mkdtempSync(prefix)
  chmodSync(folder, 0o755)
  return folder
}

/** The name in the cache of what these parts make. */
export function layerName(...parts: string[]): string {
  return `layer-${createHash('sha256').update(parts.join('\0')).digest('hex').slice(0, 16)}`
}

export interface Command {
  /** Layers from the lowest to the highest; none is written to. */
  layers: string[]
  /** Where changes go; without it the root is read-only. */
  upper?: string
  /** Folders of this machine that are seen, and may be written, at a path in the root. */
  volumes?: Record<string, string>
  /** Working directory in the root. */
  cwd?: string
  env?: Record<string, string>
  user?: { uid: number; gid: number }
  /** The program in the root and its arguments; it is process 1 there. */
  command: string[]
}

/** The argument list and the cleanup for a command in a root. */
function prepare({ layers, upper, volumes = {}, cwd = '/', env = {}, user, command }: Command) {
  const scratch = openFolder('/var/tmp/longshore-root-')
  const [root, work, empty] = ['root', 'work', 'empty'].map((name) => join(scratch, name)) as [string, string, string]
  for (const folder of [root, work, empty]) mkdirSync(folder)
  // Two lower layers at least: overlayfs wants that of a root without an upper one.
  const lower = `lowerdir=${[...layers].reverse().join(':')}:${empty}`
  const steps = [
    `mount -t overlay overlay -o ${lower}${upper ? `,upperdir=${upper},workdir=${work}` : ''} ${root}`,
    `mount -t proc proc ${root}/proc`,
    `mount -t tmpfs -o mode=1777 tmpfs ${root}/tmp`,
    `mount -t tmpfs tmpfs ${root}/dev`,
    `mkdir -m 1777 ${root}/dev/shm`,
    ...['null', 'zero', 'random', 'urandom'].map(
      (name) => `touch ${root}/dev/${name} && mount --bind /dev/${name} ${root}/dev/${name}`,
    ),
    ...['/etc/resolv.conf', '/etc/hosts'].map(
      (file) => `if [ -e ${root}${file} ]; then mount --bind ${file} ${root}${file}; fi`,
    ),
    ...Object.entries(volumes).map(([inside, outside]) => `mount --bind ${outside} ${root}${inside}`),
    `exec chroot ${user ? `--userspec=${user.uid}:${user.gid} ` : ''}${root} /usr/bin/env --chdir=${cwd} "$@"`,
  ]
  return {
    args: ['--mount', '--pid', '--fork', '--kill-child=SIGKILL', 'sh', '-ec', steps.join('\n'), 'sh', ...command],
    env: { PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root', ...env },
    remove: () => rmSync(scratch, { recursive: true, force: true }),
  }
}

/** Runs a command to its end and gives what it said; throws when its exit code is not 0. */
export function runInRoot(command: Command): string {
  const { args, env, remove } = prepare(command)
  try {
    return mustRun(['unshare', ...args], env)
  } finally {
    remove()
  }
}

/** A process in a root; `initPid` is process 1 there, by its pid on this machine. */
export interface RootProcess {
  readonly child: ChildProcessByStdio<null, Readable, Readable>
  initPid(): number | undefined
  /** To process 1, as a container engine does. */
  signal(name: NodeJS.Signals): void
  /** Ends everything in it, and removes what was made for it. */
  end(): Promise<void>
}

export function startInRoot(command: Command): RootProcess {
  const { args, env, remove } = prepare(command)
  const child = spawn('unshare', args, { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const gone = new Promise((resolve) => child.once('close', resolve))
  const initPid = () => {
    try {
      return Number(readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').split(' ')[0]) || undefined
    } catch {
      return undefined
    }
  }
  return {
    child,
    initPid,
    signal(name) {
      const pid = initPid()
      if (pid !== undefined) process.kill(pid, name)
    },
    async end() {
      const pid = initPid()
      if (pid !== undefined) process.kill(pid, 'SIGKILL')
      else child.kill('SIGKILL')
      await gone
      remove()
    },
  }
}

function mustRun([program = '', ...args]: string[], env?: Record<string, string>): string {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    ...(env ? { env } : {}),
  })
  if (status === 0) return stdout
  const said = `${stdout}\n${stderr}`.trim().split('\n').slice(-20).join('\n')
  throw new Error(`"${program} ${args.at(-1)}" ended with ${status ?? error?.message}:\n${said}`)
}
