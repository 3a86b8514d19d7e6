import { cpSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { processIdentity } from '../../src/store/postgres/process-identity.ts'

const ROOT = join(import.meta.dir, '../..')

/** Builds dist/longshore when something has changed, in a process of its own, one at a time, and gives its path. */
export function builtBinary(...options: string[]): string {
  mkdirSync(join(ROOT, 'dist'), { recursive: true })
  const command = ['flock', 'dist/.building', process.execPath, 'scripts/build.ts', ...options]
  const { exitCode, stdout, stderr } = Bun.spawnSync(command, { cwd: ROOT })
  if (exitCode !== 0) throw new Error(`The binary cannot be built:\n${stdout}${stderr}`)
  return stdout.toString().split(':')[0] ?? ''
}

/** A layer with the binary where a package would put it. */
export function layBinary(layer: string, binary: string): string {
  mkdirSync(join(layer, 'usr/local/bin'), { recursive: true })
  cpSync(binary, join(layer, 'usr/local/bin/longshore'))
  return layer
}

/** What a process holds in memory, in MB (10^6 bytes), without its children. */
export async function residentMb(pid: number): Promise<number> {
  const status = await Bun.file(`/proc/${pid}/status`).text()
  if (processIdentity(pid) === undefined) throw new Error(`The process ${pid} has ended`)
  return (Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024) / 1e6
}
