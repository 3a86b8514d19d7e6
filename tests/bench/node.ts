import { readFileSync } from 'node:fs'
import packageJson from '../../package.json'
import { denoCommand } from '../support/deno.ts'
import { nodeFolder, startNode as startProcess } from '../support/node-process.ts'

const PAGE_KIB = 4
/** Clock ticks of /proc/<pid>/stat a second (USER_HZ is 100 on Linux). */
const TICKS = 100

/** As `bun run start` sets it. */
const HEAP = /BUN_JSC_forceRAMSize=(\d+)/.exec(packageJson.scripts.start)?.[1]

/** A longshore process of its own in a new folder, with default settings but for `env`. */
export async function startNode(runtime: 'bun' | 'deno', env: Record<string, string> = {}) {
  const folder = await nodeFolder()
  const node = await startProcess(folder, {
    env: { ...(HEAP && { BUN_JSC_forceRAMSize: HEAP }), ...env },
    ...(runtime === 'deno' && { command: denoCommand() }),
  })
  const status = () => readFileSync(`/proc/${node.pid}/statm`, 'utf8').split(' ')
  return {
    ...node,
    /** Resident memory in MB. */
    residentMb: () => (Number(status()[1]) * PAGE_KIB) / 1024,
    /** Seconds of processor time so far. */
    cpuSeconds() {
      const fields = readFileSync(`/proc/${node.pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? []
      return (Number(fields[11]) + Number(fields[12])) / TICKS
    },
    async stop() {
      try {
        await node.stop()
      } finally {
        await folder[Symbol.asyncDispose]()
      }
    },
  }
}
export type BenchNode = Awaited<ReturnType<typeof startNode>>
