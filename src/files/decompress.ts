import { createReadStream, type ReadStream } from 'node:fs'
import { pipeline, type Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'
import { COMPRESSION_DEFAULTS, type Compression } from '../task/source/compression.ts'
import { FileFault } from './file-fault.ts'
import type { Source } from './parsers/parsed.ts'

/** Told how many more bytes of the file on disk have been read. */
export type OnRead = (bytes: number) => void

/** What decompression may give at most. */
export interface OutputCaps {
  /** Bytes. */
  maxBytes: number
  /** Decompressed to compressed bytes, once there are more than `RATIO_FLOOR`. */
  maxRatio: number
}

const CHUNK = 64 * 1024
/** Decompressed bytes below which any ratio is taken: a small file does no harm. */
export const RATIO_FLOOR = 64 * 1024 * 1024
const NO_ZIP_BOMB = 'is it a bomb? If not, raise'

export function outputCaps({ maxBytes, maxRatio }: Compression): OutputCaps {
  return { maxBytes: maxBytes ?? COMPRESSION_DEFAULTS.maxBytes, maxRatio: maxRatio ?? COMPRESSION_DEFAULTS.maxRatio }
}

/** The bytes of a file on disk. */
export function plainFile(path: string, onRead?: OnRead): Source {
  return async function* (offset) {
    for await (const chunk of openFile(path, offset)) {
      onRead?.(chunk.length)
      yield chunk
    }
  }
}

/**
 * What a gzip file holds, of all its members. An offset is reached by decompressing what lies before.
 * Throws FileFault: `truncated`, `malformed` (no gzip, or damaged), `too-large` (a cap).
 */
export function gzipFile(path: string, caps: OutputCaps, onRead?: OnRead): Source {
  return async function* (offset) {
    let input = 0
    const file = openFile(path, 0)
    file.on('data', (chunk) => {
      input += chunk.length
      onRead?.(chunk.length)
    })
    const gunzip = createGunzip({ chunkSize: CHUNK })
    // An error of either side comes out of the iteration.
    pipeline(file, gunzip, () => {})
    yield* from(
      offset,
      capped(gunzip, caps, () => input),
    )
  }
}

function openFile(path: string, start: number): ReadStream {
  return createReadStream(path, { start, highWaterMark: CHUNK })
}

/** What comes out of a decompressor, until it is too much; its errors as faults. Destroys it at the end. */
export async function* capped(
  output: Readable,
  { maxBytes, maxRatio }: OutputCaps,
  inputBytes: () => number,
): AsyncGenerator<Uint8Array> {
  let total = 0
  try {
    for await (const chunk of output as AsyncIterable<Uint8Array>) {
      total += chunk.length
      if (total > maxBytes) throw tooManyBytes(maxBytes)
      if (total > RATIO_FLOOR && total > maxRatio * inputBytes()) throw tooDense(maxRatio)
      yield chunk
    }
  } catch (error) {
    throw asFault(error)
  } finally {
    output.destroy()
  }
}

export function tooManyBytes(maxBytes: number): FileFault {
  return new FileFault('too-large', `The file holds more than ${maxBytes} bytes`, `${NO_ZIP_BOMB} "maxBytes"`)
}

export function tooDense(maxRatio: number): FileFault {
  const what = `The file decompresses to more than ${maxRatio} times its size`
  return new FileFault('too-large', what, `${NO_ZIP_BOMB} "maxRatio"`)
}

/** Passes over the first `offset` bytes. */
export async function* from(offset: number, chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let skip = offset
  for await (const chunk of chunks) {
    if (skip < chunk.length) yield skip === 0 ? chunk : chunk.subarray(skip)
    skip = Math.max(0, skip - chunk.length)
  }
}

function asFault(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error)) return error
  if (error.code === 'Z_BUF_ERROR') {
    return new FileFault('truncated', 'The compressed file ends too early', 'fetch it again, or let it be written anew')
  }
  if (error.code === 'Z_DATA_ERROR') {
    const what = `The file is not compressed as its name says, or is damaged: ${error.message}`
    return new FileFault('malformed', what, 'fetch it again, or set how it is compressed')
  }
  return error
}
