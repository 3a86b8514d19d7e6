import { createReadStream } from 'node:fs'
import { stat } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { LIMITS } from '../../../task/limits.ts'
import { type Client, Refusal } from '../../client.ts'
import type { ApiOptions } from '../../command.ts'
import { Failure } from '../../failure.ts'
import { counted, print, printJson, progressBar, shortDuration } from '../../output.ts'

/** Lines that go in one commit; `lines[i]` is the number of the file's line behind the i-th task. */
interface Batch {
  text: string[]
  lines: number[]
  bytes: number
}

/** Room for the separators. */
const BATCH_BYTES = LIMITS.batchBytes - 64 * 1024

/**
 * Submits every line of an NDJSON file, `batchSize` tasks a commit, in the file's order. When a batch is refused nothing
 * of it is stored, and the failure says from which line on to go on.
 */
export async function submitFile(
  client: Client,
  file: string,
  { batchSize, fromLine, json }: ApiOptions & { batchSize: number; fromLine: number },
): Promise<void> {
  const startedAt = performance.now()
  const input = file === '-' ? process.stdin : createReadStream(file)
  const size = file === '-' ? 0 : await sizeOf(file)
  const bar = progressBar(size)
  let line = 0
  let read = 0
  let stored = 0
  let batch: Batch = { text: [], lines: [], bytes: 0 }

  const send = async () => {
    if (batch.text.length === 0) return
    const { text, lines } = batch
    batch = { text: [], lines: [], bytes: 0 }
    try {
      await client.text('POST', '/tasks/batch', text.join('\n'), 'application/x-ndjson')
    } catch (error) {
      bar.end()
      throw refusedBatch(error, lines, stored)
    }
    stored += lines.length
    bar.at(read, `${stored} tasks, ${Math.round(stored / ((performance.now() - startedAt) / 1_000))}/s`)
  }

  try {
    for await (const text of createInterface({ input, crlfDelay: Number.POSITIVE_INFINITY })) {
      const bytes = Buffer.byteLength(text) + 1
      line++
      read += bytes
      if (line < fromLine || text.trim() === '') continue
      if (batch.text.length >= batchSize || batch.bytes + bytes > BATCH_BYTES) await send()
      batch.text.push(text)
      batch.lines.push(line)
      batch.bytes += bytes
    }
    await send()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'EACCES' || code === 'EISDIR') throw new Failure(`Cannot read ${file} (${code})`)
    throw error
  } finally {
    bar.end()
  }
  const ms = performance.now() - startedAt
  if (json) return printJson({ submitted: stored, lines: line, seconds: ms / 1_000 })
  print(`Submitted ${counted(stored, 'task')} in ${shortDuration(ms)}`)
}

async function sizeOf(file: string): Promise<number> {
  return (await stat(file).catch(() => undefined))?.size ?? 0
}

/** Says which line was refused, what is stored, and how to go on. */
function refusedBatch(error: unknown, lines: readonly number[], stored: number): unknown {
  if (!(error instanceof Failure)) return error
  const first = lines[0] ?? 1
  const errors = error instanceof Refusal ? error.errors : []
  const named = errors.map(({ path, message }) => {
    const [, place = '', field = ''] = /^\/(\d+)(.*)$/.exec(path) ?? []
    return `line ${lines[Number(place)] ?? first}${field && ` ${field}`}: ${message}`
  })
  const why = named.length > 0 ? named.join('\n  ') : error.message
  const unsure = error instanceof Refusal && error.code !== 'unknown' ? 'nothing of it is stored' : 'it may be stored'
  const last = lines.at(-1) ?? first
  const which = last === first ? `Line ${first} was` : `Lines ${first} to ${last} were`
  return new Failure(
    `${which} not accepted (${unsure}):\n  ${why}\n${counted(stored, 'task')} before are stored. Go on with --from-line ${first}.`,
    error.exitCode,
    { cause: error },
  )
}
