import { spawn } from 'node:child_process'
import { join } from 'node:path'

/** What a command printed, and how it ended. */
export interface Ran {
  code: number | string
  out: string
  err: string
  /** Standard output as JSON. */
  json<T = Record<string, unknown>>(): T
}

export interface RunOptions {
  cwd: string
  env?: Record<string, string | undefined>
  /** Standard input. */
  input?: string
  /** Told the process, to send it signals. */
  onStart?: (process: ReturnType<typeof spawn>) => void
}

const MAIN = join(import.meta.dir, '../../src/main.ts')

/** Runs `longshore <args>` in a process of its own with nothing of this process's settings. */
export function longshore(args: string[], { cwd, env = {}, input = '', onStart }: RunOptions): Promise<Ran> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    cwd,
    env: { PATH: process.env.PATH, HOME: process.env.HOME, NODE_ENV: 'production', ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  })
  onStart?.(child)
  // A command that does not read it closes it.
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  let out = ''
  let err = ''
  child.stdout.setEncoding('utf8').on('data', (text) => {
    out += text
  })
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text
  })
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code, signal) =>
      resolve({ code: code ?? signal ?? 'unknown', out, err, json: <T>() => JSON.parse(out) as T }),
    )
  })
}
