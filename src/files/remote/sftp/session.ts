import { createHash } from 'node:crypto'
import type { Socket } from 'node:net'
import type { ConnectConfig, SFTPWrapper } from 'ssh2'
import SftpClient from 'ssh2-sftp-client'
import { messageOf } from '../../../runtime/errors.ts'
import { RemoteFailure, type RemoteLayer } from '../../remote-files.ts'
import { bounded } from '../bounded.ts'
import { inSteps, type RemoteContext, type Step } from '../connect-steps.ts'
import { dial } from '../dial.ts'
import { type Failures, reasonOf } from '../failures.ts'

/** Status codes of SFTP version 3 (draft-ietf-secsh-filexfer-02, section 7). */
const STATUS = { eof: 1, noSuchFile: 2, permissionDenied: 3 }
const GOODBYE_MS = 1_000

/** Kinds of host keys, to be asked for one by one when the one that the server prefers is not the pinned one. */
const KEY_KINDS = [
  ['ssh-ed25519'],
  ['ecdsa-sha2-nistp256', 'ecdsa-sha2-nistp384', 'ecdsa-sha2-nistp521'],
  ['rsa-sha2-512', 'rsa-sha2-256', 'ssh-rsa'],
] as const
type KeyKind = (typeof KEY_KINDS)[number]

/** A request to the server, as ssh2 makes them: it calls back once. */
export type Request<T> = (session: SFTPWrapper, done: (error: Error | undefined | null, answer: T) => void) => void

/** An SFTP session, logged in. */
export interface SftpSession {
  readonly context: RemoteContext
  /** The directory that the login leads to. */
  readonly home: string
  /** Sends a request and gives its answer; rejects with the status when it is not OK, and when the connection is gone. */
  send<T>(request: Request<T>): Promise<T>
  /** Waits for an answer. Fails in `layer`, and closes the connection when the server is silent; an abort leaves it open. */
  wait<T>(layer: RemoteLayer, doing: string, answer: Promise<T>, signal?: AbortSignal): Promise<T>
  close(): Promise<void>
}

/** Connects, compares the host key, and logs in. Fails in the layers `resolve`, `connect`, `hostkey` and `login`. */
export function openSession(context: RemoteContext, signal?: AbortSignal): Promise<SftpSession> {
  return inSteps(context, signal, async (step, ended) => {
    let strange: RemoteFailure | undefined
    for (const kind of [undefined, ...KEY_KINDS]) {
      const shown = context.failures.identity.hostKey?.algorithm
      if (kind?.some((name) => name === shown)) continue
      try {
        return await connectOnce(context, kind, step, ended)
      } catch (error) {
        // Without a key of that kind the server does not get as far as showing one.
        const isWithoutKind = strange !== undefined && error instanceof RemoteFailure && error.reason === 'protocol'
        if (!isStrange(error) && !isWithoutKind) throw error
        if (isStrange(error)) strange ??= error
      }
    }
    throw strange
  })
}

const isStrange = (error: unknown): error is RemoteFailure =>
  error instanceof RemoteFailure && error.layer === 'hostkey'

async function connectOnce(
  context: RemoteContext,
  kind: KeyKind | undefined,
  step: Step,
  ended: AbortSignal,
): Promise<SftpSession> {
  const { connection, guard, failures } = context
  const socket = await step('connect', 'connect', 'a connection', () =>
    dial(connection, guard, failures, 'connect', ended),
  )
  ended.addEventListener('abort', () => socket.destroy(), { once: true })
  // Without callbacks it prints.
  const client = new SftpClient('longshore', { error() {}, end() {}, close() {} })
  const login = new Login(client, socket, context)
  try {
    const session = client.connect(login.config(kind))
    session.catch(() => {})
    const doing = `log in as "${connection.auth.username}"`
    await step('connect', 'start SSH', 'the SSH handshake', () =>
      login.explained(Promise.race([login.shaken, session])),
    )
    const sftp = await step('login', doing, 'an answer', () => login.explained(session))
    const opened = sessionOf(context, client, socket, sftp)
    const home = await step('login', "ask for the login's directory", 'an answer', () =>
      login.explained(opened.send<string>((wrapper, done) => wrapper.realpath('.', done))),
    )
    return { ...opened, home }
  } catch (error) {
    socket.destroy()
    throw error
  }
}

/** What is seen of one login, to tell why it failed. */
class Login {
  readonly #context: RemoteContext
  readonly #socket: Socket
  /** Resolves when keys are exchanged and the host key was accepted. */
  readonly shaken: Promise<void>
  #phase: 'handshake' | 'login' | 'session' = 'handshake'
  #strange: RemoteFailure | undefined
  #level: unknown

  constructor(client: SftpClient, socket: Socket, context: RemoteContext) {
    this.#context = context
    this.#socket = socket
    const shaken = Promise.withResolvers<void>()
    this.shaken = shaken.promise
    client.on('handshake', () => {
      this.#phase = 'login'
      shaken.resolve()
    })
    client.on('ready', () => (this.#phase = 'session'))
    client.on('error', (error: { level?: unknown }) => (this.#level ??= error.level))
    const { auth } = context.connection
    // Servers without `PasswordAuthentication` ask for the password as a question; what is echoed asks for something else.
    client.on('keyboard-interactive', (_name, _text, _lang, prompts: { echo?: boolean }[], answer) => {
      answer(prompts.map(({ echo }) => (auth.kind === 'password' && !echo ? auth.password : '')))
    })
    socket.once('data', (chunk) => {
      const text = chunk.toString('latin1')
      const greeting = /^SSH-[^\r\n]*/m.exec(text)?.[0] ?? null
      context.failures.learn({ greeting })
      // Other lines may come before SSH's own, but those of FTP are waited behind in vain.
      if (/^220[ -]/.test(text)) shaken.reject(this.#other(text))
    })
    this.shaken.catch(() => {})
  }

  #other(text: string): RemoteFailure {
    const { fail, quote } = this.#context.failures
    return fail(
      'connect',
      'protocol',
      'start SSH',
      `what answers there is not SSH (is the protocol ftp?): ${quote(text)}`,
    )
  }

  config(kind: KeyKind | undefined): ConnectConfig {
    const { auth } = this.#context.connection
    return {
      sock: this.#socket,
      username: auth.username,
      // Ours tell what was waited for.
      readyTimeout: 0,
      hostVerifier: (key: Buffer) => this.#isKnown(key),
      ...(kind && { algorithms: { serverHostKey: [...kind] } }),
      ...(auth.kind === 'password'
        ? { password: auth.password, tryKeyboard: true }
        : { privateKey: auth.privateKey, ...(auth.passphrase !== undefined && { passphrase: auth.passphrase }) }),
    }
  }

  #isKnown(key: Buffer): boolean {
    const { connection, failures } = this.#context
    const fingerprint = `SHA256:${createHash('sha256').update(key).digest('base64').replace(/=+$/, '')}`
    const algorithm = key.toString('latin1', 4, 4 + key.readUInt32BE(0))
    failures.learn({ hostKey: { algorithm, fingerprint } })
    const pinned = connection.hostKey?.replace(/=+$/, '')
    if (pinned === undefined || pinned === fingerprint) return true
    const why = `its host key (${algorithm}) is ${fingerprint}, but ${pinned} is pinned: the server was set up anew, or somebody is in between`
    this.#strange = failures.fail('hostkey', 'untrusted', 'trust the server', why)
    return false
  }

  /** As `work`, but its failure says why, in the layer that it belongs to. */
  async explained<T>(work: Promise<T>): Promise<T> {
    try {
      return await work
    } catch (error) {
      throw error instanceof RemoteFailure ? error : this.#failure(error)
    }
  }

  #failure(error: unknown): RemoteFailure {
    if (this.#strange) return this.#strange
    const { connection, failures } = this.#context
    const { auth } = connection
    const { fail, quote } = failures
    const doing = `log in as "${auth.username}"`
    const text = messageOf(error).replace(/^\w+: /, '')
    if (/privateKey/i.test(text)) {
      return fail(
        'login',
        'refused',
        doing,
        `the private key cannot be read (${quote(text)}): is it whole, and its passphrase right?`,
      )
    }
    if (this.#phase === 'handshake') {
      return this.#level === 'handshake'
        ? fail('connect', 'protocol', 'start SSH', `client and server find no common way: ${quote(text)}`)
        : fail('connect', 'closed', 'start SSH', `the server hung up (does it speak SSH on this port?): ${quote(text)}`)
    }
    if (this.#phase === 'session') return fail('login', 'refused', doing, `it offers no SFTP: ${quote(text)}`)
    if (this.#level === 'client-authentication') {
      const what = auth.kind === 'password' ? 'password' : 'key'
      return fail('login', 'denied', doing, `the server does not accept this user name with this ${what}`)
    }
    return fail('login', 'closed', doing, `the connection is gone (${quote(text)})`)
  }
}

function sessionOf(
  context: RemoteContext,
  client: SftpClient,
  socket: Socket,
  sftp: SFTPWrapper,
): Omit<SftpSession, 'home'> {
  const { clock, limits, failures } = context
  // Requests on a connection that is gone are never called back.
  const pending = new Set<(error: Error) => void>()
  let gone: Error | undefined
  const onGone = (error?: Error) => {
    gone ??= error ?? new Error('the server hung up')
    for (const reject of pending) reject(gone)
    pending.clear()
  }
  client.on('error', onGone)
  client.on('close', () => onGone())
  sftp.on('error', onGone)
  sftp.on('close', () => onGone())
  return {
    context,
    send: (request) =>
      new Promise((resolve, reject) => {
        if (gone) return reject(gone)
        pending.add(reject)
        request(sftp, (error, answer) => {
          pending.delete(reject)
          if (error) reject(error)
          else resolve(answer)
        })
      }),
    async wait(layer, doing, answer, signal) {
      const ms = limits.idleTimeoutMs
      const late = () => failures.fail(layer, 'timeout', doing, `the server was silent for ${ms} ms`)
      try {
        return await bounded(answer, { clock, ms, late, signal })
      } catch (error) {
        if (signal?.aborted) throw signal.reason
        if (error instanceof RemoteFailure) socket.destroy()
        throw error instanceof RemoteFailure ? error : answerFailure(failures, layer, doing, error)
      }
    },
    async close() {
      if (!gone)
        await bounded(client.end(), { clock, ms: GOODBYE_MS, late: () => new Error('no goodbye') }).catch(() => {})
      socket.destroy()
    },
  }
}

/** True when the error is the status that a read or a listing ends with. */
export function isEnd(error: unknown): boolean {
  return statusOf(error) === STATUS.eof
}

/** True when the error is the status that there is no such thing. */
export function isMissing(error: unknown): boolean {
  return statusOf(error) === STATUS.noSuchFile
}

function statusOf(error: unknown): number | undefined {
  const code = (error as { code?: unknown }).code
  return typeof code === 'number' ? code : undefined
}

function answerFailure({ fail, quote }: Failures, layer: RemoteLayer, doing: string, error: unknown): RemoteFailure {
  const status = statusOf(error)
  const text = messageOf(error)
  if (status === undefined) return fail(layer, 'closed', doing, `the connection is gone (${quote(text)})`)
  const reason =
    status === STATUS.noSuchFile ? 'not-found' : status === STATUS.permissionDenied ? 'denied' : reasonOf(text)
  return fail(layer, reason, doing, `the server says ${quote(text)}`)
}
