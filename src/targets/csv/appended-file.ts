import { constants } from 'node:fs'
import { type FileHandle, open, stat } from 'node:fs/promises'

/** Rejects when this thread may not touch the file any more. */
export type MayTouch = () => Promise<void>

const TRIES = 5
const FLAGS = constants.O_RDWR | constants.O_APPEND | constants.O_CREAT | constants.O_NOFOLLOW
const CHUNK_BYTES = 1024 * 1024

/**
 * A file to which this thread alone appends. What is in it beyond `size` is not ours: the rest of a write that a crash cut
 * off, or a late write of a writer that was taken for dead. It is cut off before and after each append.
 */
export class AppendedFile {
  readonly path: string
  readonly #handle: FileHandle
  readonly #mayTouch: MayTouch
  /** By which the file is known when another one takes its name. */
  readonly inode: string
  #size: number

  private constructor(path: string, handle: FileHandle, mayTouch: MayTouch, inode: string, size: number) {
    this.path = path
    this.#handle = handle
    this.#mayTouch = mayTouch
    this.inode = inode
    this.#size = size
  }

  /** Opens it, and makes it when it is missing; a link is refused. */
  static async open(path: string, mayTouch: MayTouch): Promise<AppendedFile> {
    await mayTouch()
    const handle = await open(path, FLAGS, 0o644).catch((error: NodeJS.ErrnoException) => {
      throw error.code === 'ELOOP' ? new Error(`${path} is a link, which is not followed`) : error
    })
    try {
      const { ino, size } = await handle.stat()
      return new AppendedFile(path, handle, mayTouch, String(ino), size)
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** Bytes that are ours. */
  get size(): number {
    return this.#size
  }

  /** Whether the name still leads to this file: somebody may have moved it away. */
  async isInPlace(): Promise<boolean> {
    const found = await stat(this.path).catch((error: NodeJS.ErrnoException) => {
      if (error.code === 'ENOENT') return undefined
      throw error
    })
    return found !== undefined && String(found.ino) === this.inode
  }

  /** Cuts off what is behind `size`. */
  async cut(size: number): Promise<void> {
    await this.#mayTouch()
    await this.#handle.truncate(size)
    this.#size = size
  }

  /** Appends and waits until the disk has it. */
  async append(bytes: Uint8Array): Promise<void> {
    for (let tries = 1; tries <= TRIES; tries++) {
      if ((await this.#handle.stat()).size !== this.#size) await this.cut(this.#size)
      await this.#mayTouch()
      await this.#write(bytes)
      await this.#handle.datasync()
      const size = this.#size + bytes.length
      if ((await this.#handle.stat()).size === size) {
        this.#size = size
        return
      }
    }
    throw new Error(`Somebody else writes to ${this.path}`)
  }

  async #write(bytes: Uint8Array): Promise<void> {
    let at = 0
    while (at < bytes.length) at += (await this.#handle.write(bytes, at, bytes.length - at, null)).bytesWritten
  }

  /** Bytes from `start` on, at most `length`. */
  async read(start: number, length: number): Promise<Buffer> {
    const buffer = Buffer.alloc(Math.max(0, Math.min(length, this.#size - start)))
    let at = 0
    while (at < buffer.length) {
      const { bytesRead } = await this.#handle.read(buffer, at, Math.min(CHUNK_BYTES, buffer.length - at), start + at)
      if (bytesRead === 0) break
      at += bytesRead
    }
    return buffer.subarray(0, at)
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}
