import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'

const ROOT = join(import.meta.dir, '../..')

/** The program that the npm package `deno` brings for this machine. */
export function denoPath(): string {
  const fromDeno = createRequire(createRequire(import.meta.url).resolve('deno/package.json'))
  const libc = process.platform === 'linux' ? '-glibc' : ''
  const platform = fromDeno.resolve(`@deno/${process.platform}-${process.arch}${libc}/package.json`)
  return join(dirname(platform), 'deno')
}

/** The command of `deno task start` up to `start`, without the task runner, which keeps SIGTERM to itself. */
export function denoCommand(): string[] {
  const { tasks } = JSON.parse(readFileSync(join(ROOT, 'deno.json'), 'utf8')) as { tasks: { start: string } }
  const words = tasks.start.split(' ')
  if (words[0] !== 'deno' || words.slice(-2).join(' ') !== 'src/main.ts start') {
    throw new Error(`The task "start" of deno.json has another form: ${tasks.start}`)
  }
  return [denoPath(), ...words.slice(1, -2), join(ROOT, 'src/main.ts')]
}
