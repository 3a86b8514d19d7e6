import { createHash, randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, rm, stat, statfs } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../runtime/errors.ts'
import { syncFolder } from '../runtime/sync-folder.ts'

/** A file that lies in the spool, whole and durable. */
export interface Spooled {
  name: string
  /** In bytes. */
  size: number
  sha256: string
}

/** The disk did not take it (is it full?). */
export class SpoolFailure extends Error {
  override readonly name = 'SpoolFailure'
}

/** Where this node keeps files from when they are fetched until they are imported; under random names. */
export interface Spool {
  pathOf(name: string): string
  /**
   * Writes all that comes into a new file and makes it durable. It is kept until `release`, and after that while the ledger
   * names it. Rejects with SpoolFailure, or as `chunks` does; then nothing is left of it.
   */
  receive(chunks: AsyncIterable<Uint8Array>): Promise<Spooled>
  /** How much more it is to take. */
  room(): Promise<SpoolRoom>
  /** The ledger knows of it by now, or nobody wants it. */
  release(name: string): void
  /** Whether it lies here with this size; null: with any. */
  has(name: string, size: number | null): Promise<boolean>
  remove(name: string): Promise<void>
  /** Removes what `wanted` does not name, unless it is being received, or was written within `youngMs`. Gives the number. */
  sweep(wanted: (names: string[]) => Promise<Set<string>>, youngMs: number): Promise<number>
}

/** Bytes that may come until the spool has its limit, and until its disk has no more than is left to others. */
export interface SpoolRoom {
  underLimit: number
  onDisk: number
}

/** The ledger itself may be on that disk. */
const LEFT_TO_OTHERS = 1024 ** 3
/** A sweep asks about so many at once. */
const SWEEP_BATCH = 1_000
const SPOOLED = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

export function createSpool(
  dir: string,
  { limitBytes = Number.POSITIVE_INFINITY, leftToOthers = LEFT_TO_OTHERS } = {},
): Spool {
  const inUse = new Set<string>()
  const pathOf = (name: string) => join(dir, name)
  const remove = (name: string) => rm(pathOf(name), { force: true })

  async function write(name: string, chunks: AsyncIterable<Uint8Array>): Promise<Spooled> {
    const digest = createHash('sha256')
    let size = 0
    const file = await onDisk(async () => {
      await mkdir(dir, { recursive: true, mode: 0o700 })
      return open(pathOf(name), 'wx', 0o600)
    })
    try {
      for await (const chunk of chunks) {
        digest.update(chunk)
        size += chunk.length
        await onDisk(() => writeAll(file, chunk))
      }
      await onDisk(() => file.sync())
    } finally {
      await file.close()
    }
    await onDisk(() => syncFolder(dir))
    return { name, size, sha256: digest.digest('hex') }
  }

  return {
    pathOf,
    async receive(chunks) {
      const name = randomUUID()
      inUse.add(name)
      try {
        return await write(name, chunks)
      } catch (error) {
        inUse.delete(name)
        await remove(name)
        throw error
      }
    },
    async room() {
      await mkdir(dir, { recursive: true, mode: 0o700 })
      let used = 0
      for (const name of await listed(dir)) used += (await stat(pathOf(name)).catch(() => undefined))?.size ?? 0
      const { bavail, bsize } = await statfs(dir)
      return { underLimit: limitBytes - used, onDisk: bavail * bsize - leftToOthers }
    },
    release: (name) => void inUse.delete(name),
    async has(name, size) {
      const found = await stat(pathOf(name)).catch(() => undefined)
      return found?.isFile() === true && (size === null || found.size === size)
    },
    remove,
    async sweep(wanted, youngMs) {
      const names = await listed(dir)
      let removed = 0
      for (let at = 0; at < names.length; at += SWEEP_BATCH) {
        const batch = names.slice(at, at + SWEEP_BATCH)
        const kept = await wanted(batch)
        for (const name of batch) {
          if (kept.has(name) || inUse.has(name) || (await isYoung(pathOf(name), youngMs))) continue
          await remove(name)
          removed++
        }
      }
      return removed
    },
  }
}

async function listed(dir: string): Promise<string[]> {
  try {
    return (await readdir(dir)).filter((name) => SPOOLED.test(name))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}

/** By the times of this disk and this machine's clock; the spool is never elsewhere. */
async function isYoung(path: string, youngMs: number): Promise<boolean> {
  const found = await stat(path).catch(() => undefined)
  return found !== undefined && Date.now() - found.mtimeMs < youngMs
}

/** The disk may take less than it is given at once. */
async function writeAll(file: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let from = 0; from < chunk.length; ) {
    const { bytesWritten } = await file.write(chunk, from)
    from += bytesWritten
  }
}

async function onDisk<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw new SpoolFailure(`Cannot write to the spool: ${messageOf(error)}`, { cause: error })
  }
}

/** Ends after the first byte too many: how many more there are does not matter. Null: there is no limit. */
export async function* atMost(chunks: AsyncIterable<Uint8Array>, bytes: number | null): AsyncGenerator<Uint8Array> {
  let total = 0
  for await (const chunk of chunks) {
    total += chunk.length
    yield chunk
    if (bytes !== null && total > bytes) return
  }
}
