import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { cp, rm, symlink } from 'node:fs/promises'
import { connect } from 'node:net'
import { delimiter, join } from 'node:path'
import { freePort } from '../support/free-port.ts'
import { nodeFolder } from '../support/node-process.ts'
import { until } from '../support/until.ts'
import { ROOT } from './markdown.ts'

/** What a clone holds that a reader's commands may touch. */
const CLONED = [
  'package.json',
  'bun.lock',
  'bunfig.toml',
  'tsconfig.json',
  '.env.example',
  'src',
  'db',
  'scripts',
  'docs',
]
/** Ports as the docs name them. Free ones take their places, because on a reader's machine these may be taken. */
const PORTS = ['8080', '8081', '9000', '9001']
const START_WITHIN_MS = 60_000
const BLOCK_WITHIN_MS = 90_000
/** A look after a while: here it is repeated until it finds something, for a slower machine needs a longer while. */
const LATER = /^(sleep \d+); (.+)$/gm
const END = '\u0001end of block\u0001'

/** A fresh clone, and a shell in it that keeps what its blocks set. */
export interface Terminal extends AsyncDisposable {
  readonly path: string
  /** Runs a block; gives its stdout, rejects with all it said when a command of it fails. */
  run(code: string): Promise<string>
  /** Starts a block in a shell of its own that goes on; resolves when `port` (as the docs name it) takes connections. */
  serve(code: string, port: string): Promise<void>
}

/** `replace` are literals of the docs and what stands for them here; `programs` lies in front of PATH. */
export async function openTerminal({
  replace = {},
  programs,
}: {
  replace?: Record<string, string>
  programs?: (folder: string) => string
}): Promise<Terminal> {
  const folder = await nodeFolder()
  const clone = join(folder.path, 'longshore')
  mkdirSync(clone)
  for (const name of CLONED) await cp(join(ROOT, name), join(clone, name), { recursive: true })
  await symlink(join(ROOT, 'node_modules'), join(clone, 'node_modules'))
  await rm(join(folder.path, 'handlers'), { recursive: true })

  const bin = join(folder.path, 'bin')
  mkdirSync(bin)
  // In a clone `longshore` is what the single binary is elsewhere.
  writeFileSync(join(bin, 'longshore'), `#!/bin/sh\nexec "${process.execPath}" "${clone}/src/main.ts" "$@"\n`)
  chmodSync(join(bin, 'longshore'), 0o755)

  const words = { ...replace, ...Object.fromEntries(await freePorts()) }
  const pattern = new RegExp(
    Object.keys(words)
      .map((word) => (/^\d+$/.test(word) ? `\\b${word}\\b` : RegExp.escape(word)))
      .join('|'),
    'g',
  )
  const here = (code: string) =>
    code.replaceAll(LATER, '$1; until $2; do $1; done').replaceAll(pattern, (word) => words[word] ?? word)
  const env = {
    HOME: process.env.HOME,
    PATH: [bin, programs?.(join(folder.path, 'programs')), process.env.PATH].filter(Boolean).join(delimiter),
    PORT: words['8080'],
    NO_COLOR: '1',
    PGCONNECT_TIMEOUT: '10',
  }
  const begin = (args: string[]) => spawn('bash', args, { cwd: clone, env, stdio: ['pipe', 'pipe', 'pipe'] })
  const shell = begin(['-eo', 'pipefail', '-s'])
  const said = listen(shell)

  return {
    path: clone,
    async run(code) {
      const from = said.stdout.length
      const all = said.all.length
      shell.stdin?.write(`${here(code)}\nprintf '${END}'\n`)
      await until(() => said.stdout.indexOf(END, from) >= 0 || said.ended, {
        timeoutMs: BLOCK_WITHIN_MS,
        what: `the end of:\n${code}\nIt said:\n${said.all.slice(all)}`,
      })
      const end = said.stdout.indexOf(END, from)
      if (end < 0) throw new Error(`A command failed in:\n${here(code)}\nIt said:\n${said.all.slice(all)}`)
      return said.stdout.slice(from, end)
    },
    async serve(code, port) {
      const server = begin(['-c', here(code)])
      const heard = listen(server)
      await until(async () => heard.ended || (await takesConnections(Number(words[port]))), {
        timeoutMs: START_WITHIN_MS,
        what: `port ${port} of:\n${code}`,
      })
      if (heard.ended) throw new Error(`It ended:\n${here(code)}\nIt said:\n${heard.all}`)
    },
    async [Symbol.asyncDispose]() {
      shell.stdin?.end()
      await folder[Symbol.asyncDispose]()
    },
  }
}

function listen(child: ChildProcess) {
  const said = { stdout: '', all: '', ended: false }
  child.stdout?.setEncoding('utf8').on('data', (part: string) => {
    said.stdout += part
    said.all += part
  })
  child.stderr?.setEncoding('utf8').on('data', (part: string) => {
    said.all += part
  })
  child.stdin?.on('error', () => {})
  child.once('close', () => {
    said.ended = true
  })
  return said
}

async function freePorts(): Promise<[string, string][]> {
  const free = new Set<number>()
  while (free.size < PORTS.length) free.add(await freePort())
  return [...free].map((port, index) => [PORTS[index] as string, String(port)])
}

function takesConnections(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
    socket.once('connect', () => socket.destroy())
  })
}
