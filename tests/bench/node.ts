import { readFileSync } from 'node:fs'
import { denoCommand } from '../support/deno.ts'
import { nodeFolder, startNode as startProcess } from '../support/node-process.ts'

const PAGE_KIB = 4
/** Clock ticks of /proc/<pid>/stat a second (USER_HZ is 100 on Linux). */
const TICKS = 100

/** A longshore process of its own, with default settings on an embedded Postgres in a new folder. */
export async function startNode(runtime: 'bun' | 'deno') {
  const folder = await nodeFolder()
  const node = await startProcess(folder, runtime === 'deno' ? { command: denoCommand() } : {})
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
