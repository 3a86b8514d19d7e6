import { constants } from 'node:fs'
import type { Attributes, FileEntry, Stats } from 'ssh2'
import {
  type ListOptions,
  type RemoteEntry,
  RemoteFailure,
  type RemoteFile,
  type RemoteFiles,
  type RemoteIdentity,
  type RemoteLayer,
} from '../../remote-files.ts'
import type { RemoteContext } from '../connect-steps.ts'
import { absolutePath, joinPath, parentOf, refusalOfName, shown, tidyPath } from '../names.ts'
import { OneAtATime } from '../one-at-a-time.ts'
import { listTree } from '../tree.ts'
import { Ahead } from './ahead.ts'
import { isEnd, isMissing, openSession, type SftpSession } from './session.ts'

/** Bytes asked for at once, which every server gives. */
const CHUNK = 64 * 1024
/** Two megabytes under way, as much as the SSH channel lets through. */
const CHUNKS_AHEAD = 32
/** Requests for the next entries of a directory; OpenSSH gives 100 for each. */
const LISTS_AHEAD = 8

/** Connects to an SFTP server. */
export async function connectSftp(context: RemoteContext, signal?: AbortSignal): Promise<RemoteFiles> {
  return new SftpFiles(await openSession(context, signal))
}

class SftpFiles implements RemoteFiles {
  readonly #session: SftpSession
  readonly #turn = new OneAtATime()

  constructor(session: SftpSession) {
    this.#session = session
  }

  get identity(): RemoteIdentity {
    return this.#session.context.failures.identity
  }

  list(directory: string, options: ListOptions = {}): AsyncGenerator<RemoteEntry, void, undefined> {
    const { failures } = this.#session.context
    return this.#turn.stream(`list "${shown(directory)}"`, () =>
      listTree(directory, options, failures, (path) => this.#listOne(path, options.signal)),
    )
  }

  stat(path: string, { signal }: { signal?: AbortSignal } = {}): Promise<RemoteFile | undefined> {
    return this.#turn.run(`examine "${shown(path)}"`, async () => {
      const attributes = await this.#attributes(this.#absolute(path, 'read'), 'read', signal)
      return attributes && { ...factsOf(attributes), path: tidyPath(path) }
    })
  }

  read(
    path: string,
    { offset = 0, signal }: { offset?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    return this.#turn.stream(`read "${shown(path)}"`, () => this.#read(path, offset, signal))
  }

  move(from: string, to: string): Promise<void> {
    const doing = `move "${shown(from)}" to "${shown(to)}"`
    return this.#turn.run(doing, async () => {
      const [source, target] = [this.#absolute(from, 'write'), this.#absolute(to, 'write')]
      // A server that would overwrite is asked first; one that would not has no word of its own for it.
      if (await this.#attributes(target, 'write')) {
        throw this.#session.context.failures.fail('write', 'exists', doing, 'something is there already')
      }
      await this.#do('write', doing, (session, done) => session.rename(source, target, done))
    })
  }

  remove(path: string): Promise<void> {
    return this.#turn.run(`delete "${shown(path)}"`, async () => {
      const absolute = this.#absolute(path, 'write')
      await this.#do('write', `delete "${shown(path)}"`, (session, done) => session.unlink(absolute, done))
    })
  }

  makeDirectory(path: string): Promise<void> {
    const doing = `make the directory "${shown(path)}"`
    return this.#turn.run(doing, () => this.#makeDirectory(this.#absolute(path, 'write'), doing))
  }

  close(): Promise<void> {
    return this.#session.close()
  }

  #absolute(path: string, layer: RemoteLayer): string {
    return absolutePath(path, this.#session.home, layer)
  }

  async #do(
    layer: RemoteLayer,
    doing: string,
    request: (session: Parameters<Parameters<SftpSession['send']>[0]>[0], done: (error?: Error | null) => void) => void,
  ): Promise<void> {
    const answer = this.#session.send<void>((session, done) => request(session, (error) => done(error, undefined)))
    await this.#session.wait(layer, doing, answer)
  }

  async #makeDirectory(path: string, doing: string): Promise<void> {
    const there = path === '/' ? undefined : await this.#attributes(path, 'write')
    if (path === '/' || (there && factsOf(there).kind === 'directory')) return
    await this.#makeDirectory(parentOf(path), doing)
    await this.#do('write', doing, (session, done) => session.mkdir(path, done))
  }

  /** Undefined when there is nothing at the path. */
  #attributes(path: string, layer: RemoteLayer, signal?: AbortSignal): Promise<Stats | undefined> {
    const answer = this.#session
      .send<Stats>((session, done) => session.stat(path, done))
      .catch((error: unknown) => {
        if (isMissing(error)) return undefined
        throw error
      })
    return this.#session.wait(layer, `examine "${shown(path)}"`, answer, signal)
  }

  async *#listOne(directory: string, signal: AbortSignal | undefined): AsyncGenerator<RemoteEntry> {
    const doing = `list "${shown(directory)}"`
    const path = this.#absolute(directory, 'directory')
    const opening = this.#session.send<Buffer>((session, done) => session.opendir(path, done))
    const handle = await this.#session.wait('directory', `enter "${shown(directory)}"`, opening, signal)
    const lists = new Ahead(() => this.#nextEntries(handle), LISTS_AHEAD)
    try {
      for (;;) {
        const entries = await this.#session.wait('list', doing, lists.next(), signal)
        if (entries === undefined) return
        for (const entry of entries) {
          if (entry.filename !== '.' && entry.filename !== '..') yield entryOf(directory, entry)
        }
      }
    } finally {
      this.#letGo(handle)
    }
  }

  /** Undefined at the end of the directory. */
  #nextEntries(handle: Buffer): Promise<FileEntry[] | undefined> {
    return this.#session
      .send<FileEntry[]>((session, done) => session.readdir(handle, done))
      .catch((error: unknown) => {
        if (isEnd(error)) return undefined
        throw error
      })
  }

  async *#read(path: string, offset: number, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
    const doing = `read "${shown(path)}"`
    const absolute = this.#absolute(path, 'read')
    const opening = this.#session.send<Buffer>((session, done) => session.open(absolute, 'r', done))
    const handle = await this.#session.wait('read', doing, opening, signal)
    let position = offset
    /** Buffers that were read out: thousands of new ones would be garbage faster than it is collected. */
    const free: Buffer[] = []
    const chunks = new Ahead(() => {
      const chunk = this.#readChunk(handle, position, free.pop() ?? Buffer.allocUnsafeSlow(CHUNK))
      position += CHUNK
      return chunk
    }, CHUNKS_AHEAD)
    try {
      for (;;) {
        const chunk = await this.#session.wait('read', doing, chunks.next(), signal)
        if (chunk.length > 0) yield chunk
        // A short chunk is the end; what a growing file has behind it by now would leave a gap.
        if (chunk.length < CHUNK) return
        free.push(chunk)
      }
    } finally {
      this.#letGo(handle)
    }
  }

  /** A whole chunk, or what there is up to the end; servers may give less than they are asked for. */
  async #readChunk(handle: Buffer, position: number, buffer: Buffer): Promise<Buffer> {
    let filled = 0
    while (filled < CHUNK) {
      const from = filled
      const count = await this.#session.send<number>((session, done) =>
        session.read(handle, buffer, from, CHUNK - from, position + from, done),
      )
      if (count === 0) break
      filled += count
    }
    return buffer.subarray(0, filled)
  }

  /** Nobody waits for that; without it the server runs out of handles. */
  #letGo(handle: Buffer): void {
    this.#do('read', 'close a handle', (session, done) => session.close(handle, done)).catch((error: unknown) => {
      // The connection is gone, and with it the handle.
      if (!(error instanceof RemoteFailure)) throw error
    })
  }
}

function entryOf(directory: string, { filename, longname, attrs }: FileEntry): RemoteEntry {
  const reason = refusalOfName(filename)
  if (reason) return { kind: 'refused', directory, name: shown(filename), reason }
  return { ...factsOf(attrs, longname), path: joinPath(directory, filename) }
}

function factsOf(attributes: Partial<Attributes>, longname = ''): Omit<RemoteFile, 'path'> {
  const { mode, size, mtime } = attributes
  return {
    kind: mode === undefined ? kindOfLongname(longname) : kindOfMode(mode),
    size: size !== undefined && Number.isSafeInteger(size) ? size : null,
    modifiedAt: mtime === undefined ? null : new Date(mtime * 1000).toISOString().replace('.000Z', 'Z'),
    rawModifiedAt: mtime === undefined ? null : String(mtime),
  }
}

function kindOfMode(mode: number): RemoteFile['kind'] {
  switch (mode & constants.S_IFMT) {
    case constants.S_IFREG:
      return 'file'
    case constants.S_IFDIR:
      return 'directory'
    case constants.S_IFLNK:
      return 'link'
    default:
      return 'other'
  }
}

/** Servers that tell no mode still begin their `ls -l` line with it. */
function kindOfLongname(longname: string): RemoteFile['kind'] {
  switch (longname[0]) {
    case '-':
      return 'file'
    case 'd':
      return 'directory'
    case 'l':
      return 'link'
    default:
      return 'other'
  }
}
