import type { FTPResponse } from 'basic-ftp'
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
import { absolutePath, parentOf, shown, tidyPath } from '../names.ts'
import { OneAtATime } from '../one-at-a-time.ts'
import { listTree } from '../tree.ts'
import { type FtpControl, openControl } from './control.ts'
import { FtpDataPort } from './data.ts'
import { linesOf, MAX_LINE_BYTES, type ReadLine, readFtpTime, readListLine, readMlsxLine, readSize } from './listing.ts'
import { receive } from './transfer.ts'

/** Connects to an FTP or FTPS server. */
export async function connectFtp(context: RemoteContext, signal?: AbortSignal): Promise<RemoteFiles> {
  return new FtpFiles(await openControl(context, signal))
}

/** How a server can be asked for a listing of its working directory, the most telling first. */
interface ListCommand {
  command: string
  readLine: ReadLine
}

const LIST_COMMANDS: ListCommand[] = [
  { command: 'LIST -a', readLine: readListLine },
  { command: 'LIST', readLine: readListLine },
]
const MLSD: ListCommand = { command: 'MLSD', readLine: readMlsxLine }

/** Not understood, not implemented (RFC 959). */
const UNKNOWN_COMMAND = [500, 502]

class FtpFiles implements RemoteFiles {
  readonly #control: FtpControl
  readonly #port: FtpDataPort
  readonly #turn = new OneAtATime()
  #listCommands: ListCommand[]

  constructor(control: FtpControl) {
    this.#control = control
    this.#port = new FtpDataPort(control)
    this.#listCommands = control.hasMlsx ? [MLSD, ...LIST_COMMANDS] : LIST_COMMANDS
  }

  get identity(): RemoteIdentity {
    return this.#control.context.failures.identity
  }

  list(directory: string, options: ListOptions = {}): AsyncGenerator<RemoteEntry, void, undefined> {
    const { failures } = this.#control.context
    return this.#turn.stream(`list "${shown(directory)}"`, () =>
      listTree(directory, options, failures, (path) => this.#listOne(path, options)),
    )
  }

  stat(path: string, { signal }: { signal?: AbortSignal } = {}): Promise<RemoteFile | undefined> {
    return this.#turn.run(`examine "${shown(path)}"`, () => this.#stat(path, 'read', signal))
  }

  read(
    path: string,
    { offset = 0, signal }: { offset?: number; signal?: AbortSignal } = {},
  ): AsyncGenerator<Uint8Array, void, undefined> {
    const doing = `read "${shown(path)}"`
    return this.#turn.stream(doing, () => {
      const command = `RETR ${this.#absolute(path, 'read')}`
      return receive(this.#control, this.#port, { layer: 'read', doing, command, offset, signal })
    })
  }

  move(from: string, to: string): Promise<void> {
    const doing = `move "${shown(from)}" to "${shown(to)}"`
    return this.#turn.run(doing, async () => {
      const source = this.#absolute(from, 'write')
      const target = this.#absolute(to, 'write')
      // Servers overwrite in silence.
      if (await this.#stat(to, 'write')) {
        throw this.#control.context.failures.fail('write', 'exists', doing, 'something is there already')
      }
      await this.#control.command('write', doing, `RNFR ${source}`)
      await this.#control.command('write', doing, `RNTO ${target}`)
    })
  }

  remove(path: string): Promise<void> {
    const doing = `delete "${shown(path)}"`
    return this.#turn.run(doing, async () => {
      await this.#control.command('write', doing, `DELE ${this.#absolute(path, 'write')}`)
    })
  }

  makeDirectory(path: string): Promise<void> {
    const doing = `make the directory "${shown(path)}"`
    return this.#turn.run(doing, () => this.#makeDirectory(this.#absolute(path, 'write'), doing))
  }

  async close(): Promise<void> {
    this.#control.client.close()
  }

  #absolute(path: string, layer: RemoteLayer): string {
    return absolutePath(path, this.#control.home, layer)
  }

  async #makeDirectory(path: string, doing: string): Promise<void> {
    if (path === '/' || (await this.#isDirectory(path, 'write', doing))) return
    await this.#makeDirectory(parentOf(path), doing)
    await this.#control.command('write', doing, `MKD ${path}`)
  }

  /** By entering it: every server tells that, and every other command here names what it means in full. */
  async #isDirectory(path: string, layer: RemoteLayer, doing: string, signal?: AbortSignal): Promise<boolean> {
    const { code } = await this.#control.ask(layer, doing, `CWD ${path}`, signal)
    return code < 400
  }

  async *#listOne(directory: string, { exactTimes, signal }: ListOptions): AsyncGenerator<RemoteEntry> {
    const doing = `list "${shown(directory)}"`
    // A name in the list command itself would be taken for options or patterns.
    const path = this.#absolute(directory, 'directory')
    await this.#control.command('directory', `enter "${shown(directory)}"`, `CWD ${path}`, signal)
    const asked: RemoteFile[] = []
    for await (const entries of this.#entries(directory, doing, signal)) {
      for (const entry of entries) {
        if (entry.kind === 'file' && entry.modifiedAt === null && exactTimes?.(entry)) asked.push(entry)
        else yield entry
      }
    }
    for (const file of asked) {
      const { modifiedAt } = await this.#modifiedAt(this.#absolute(file.path, 'list'), 'list', doing, signal)
      yield { ...file, modifiedAt }
    }
  }

  /** The working directory's entries, by the best command that the server takes. */
  async *#entries(directory: string, doing: string, signal: AbortSignal | undefined): AsyncGenerator<RemoteEntry[]> {
    for (const [index, { command, readLine }] of this.#listCommands.entries()) {
      let hasBegun = false
      try {
        for await (const lines of this.#lines(command, doing, signal)) {
          hasBegun = true
          yield lines.map((line) => readLine(line, directory)).filter((entry) => entry !== undefined)
        }
        this.#listCommands = this.#listCommands.slice(index, index + 1)
        return
      } catch (error) {
        const isLast = index === this.#listCommands.length - 1
        if (isLast || hasBegun || this.#control.client.closed || !isRefusal(error)) throw error
      }
    }
  }

  async *#lines(command: string, doing: string, signal: AbortSignal | undefined): AsyncGenerator<string[]> {
    const { failures } = this.#control.context
    let reply: FTPResponse | undefined
    const transfer = receive(this.#control, this.#port, { layer: 'list', doing, command, signal })
    const chunks = (async function* () {
      reply = yield* transfer
    })()
    yield* linesOf(chunks, () =>
      failures.fail('list', 'limit', doing, `a line of the listing has more than ${MAX_LINE_BYTES} bytes`),
    )
    const message = reply?.message ?? ''
    const reason = whyPartial(message)
    if (reason === undefined) return
    throw failures.fail('list', reason, doing, `the server left some out: it says ${failures.quote(message)}`)
  }

  async #stat(path: string, layer: RemoteLayer, signal?: AbortSignal): Promise<RemoteFile | undefined> {
    const doing = `examine "${shown(path)}"`
    const absolute = this.#absolute(path, layer)
    if (this.#control.hasMlsx) return this.#statByMlst(absolute, tidyPath(path), layer, doing, signal)
    const size = await this.#control.ask(layer, doing, `SIZE ${absolute}`, signal)
    if (size.code < 400 || UNKNOWN_COMMAND.includes(size.code)) {
      const time = await this.#modifiedAt(absolute, layer, doing, signal)
      const bytes = readSize(/^213 (\d+)/.exec(size.message)?.[1])
      if (bytes !== null || time.rawModifiedAt !== null) {
        return { kind: 'file', path: tidyPath(path), size: bytes, ...time }
      }
    }
    this.#mustNotBePassing(size, layer, doing)
    const isDirectory = await this.#isDirectory(absolute, layer, doing, signal)
    return isDirectory
      ? { kind: 'directory', path: tidyPath(path), size: null, modifiedAt: null, rawModifiedAt: null }
      : undefined
  }

  async #statByMlst(
    absolute: string,
    path: string,
    layer: RemoteLayer,
    doing: string,
    signal?: AbortSignal,
  ): Promise<RemoteFile | undefined> {
    const reply = await this.#control.ask(layer, doing, `MLST ${absolute}`, signal)
    const { code, message } = reply
    if (code >= 400) return this.#mustNotBePassing(reply, layer, doing)
    const [facts] = message.split('\n').slice(1, -1)
    // The name in it may be a full path: only the facts count. A directory that is asked about is its own `cdir`.
    const line = facts
      ?.trimStart()
      .replace(/^(.*?;) .*$/, '$1 -')
      .replace(/type=[cp]dir;/i, 'type=dir;')
    const entry = line === undefined ? undefined : readMlsxLine(line, '')
    if (entry === undefined || entry.kind === 'refused') {
      const { fail, quote } = this.#control.context.failures
      throw fail(layer, 'protocol', doing, `the server says ${quote(message)}`)
    }
    return { ...entry, path }
  }

  /** Codes from 500 on say that there is no such thing; those below, that the server cannot tell just now. */
  #mustNotBePassing({ code, message }: FTPResponse, layer: RemoteLayer, doing: string): undefined {
    const { fail, quote } = this.#control.context.failures
    if (code < 500) throw fail(layer, 'refused', doing, `the server says ${quote(message)}`)
  }

  /** By MDTM (RFC 3659); nulls when the server does not tell. */
  async #modifiedAt(
    path: string,
    layer: RemoteLayer,
    doing: string,
    signal?: AbortSignal,
  ): Promise<Pick<RemoteFile, 'modifiedAt' | 'rawModifiedAt'>> {
    const { message } = await this.#control.ask(layer, doing, `MDTM ${path}`, signal)
    const time = /^213 (\S+)/.exec(message)?.[1] ?? null
    return { modifiedAt: time === null ? null : readFtpTime(time), rawModifiedAt: time }
  }
}

/** A server that does not know a command says anything: that it is unknown, or that there is no file of that name. */
function isRefusal(error: unknown): boolean {
  return error instanceof RemoteFailure && ['refused', 'not-found', 'denied'].includes(error.reason)
}

/** Why a listing that ended well is not all of a directory: servers say so in words only. Undefined when it is. */
function whyPartial(message: string): 'limit' | 'denied' | undefined {
  // pure-ftpd, of what is over its own limit.
  if (/truncated/i.test(message)) return 'limit'
  // vsftpd, of a directory that it may enter and not read.
  return /failed to open directory/i.test(message) ? 'denied' : undefined
}
