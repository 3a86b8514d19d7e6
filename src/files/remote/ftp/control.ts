import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { Client, FTPError, type FTPResponse } from 'basic-ftp'
import { messageOf } from '../../../runtime/errors.ts'
import { RemoteFailure, type RemoteLayer } from '../../remote-files.ts'
import { bounded } from '../bounded.ts'
import { inSteps, type RemoteContext, type Step } from '../connect-steps.ts'
import { dial } from '../dial.ts'
import { reasonOf } from '../failures.ts'
import { checkTrust, handshake, startTls, tlsIdentity } from './tls.ts'

/** MLSD facts that are used; servers send more unless told. */
const FACTS = 'OPTS MLST type;size;modify;'
/** Closing the control connection, no data connection, data connection cut (RFC 959). */
const CUT_CODES = [421, 425, 426]

/** FTP's control connection, logged in. */
export interface FtpControl {
  readonly context: RemoteContext
  readonly client: Client
  /** The directory that the login leads to. */
  readonly home: string
  /** The server has MLSD and MLST (RFC 3659). */
  readonly hasMlsx: boolean
  /** Sends a command and gives the reply, an error reply too; fails when there is none. */
  ask(layer: RemoteLayer, doing: string, command: string, signal?: AbortSignal): Promise<FTPResponse>
  /** As `ask`, but an error reply is a failure of `layer`. */
  command(layer: RemoteLayer, doing: string, command: string, signal?: AbortSignal): Promise<FTPResponse>
  /** Waits for something that the server must do, and closes the connection when it does not, or on abort. */
  wait<T>(layer: RemoteLayer, doing: string, work: Promise<T>, signal?: AbortSignal): Promise<T>
}

/** Connects, makes the connection as safe as the settings want it, and logs in. Fails in every layer up to `login`. */
export function openControl(context: RemoteContext, signal?: AbortSignal): Promise<FtpControl> {
  // Time-outs are ours: theirs do not tell what was waited for.
  const client = new Client(0)
  return inSteps(context, signal, async (step, ended) => {
    ended.addEventListener('abort', () => client.close())
    try {
      await connectControl(client, context, step, ended)
      await logIn(client, context, step)
      return await settle(client, context, step)
    } catch (error) {
      client.close()
      throw error
    }
  })
}

async function connectControl(client: Client, context: RemoteContext, step: Step, ended: AbortSignal): Promise<void> {
  const { connection, guard, failures } = context
  const { protocol } = connection
  let socket = await step('connect', 'connect', 'a connection', () =>
    dial(connection, guard, failures, 'connect', ended),
  )
  // Before the client has it, nobody else would close it.
  ended.addEventListener('abort', () => socket.destroy())
  if (protocol === 'ftps-implicit') socket = await secure(socket, context, step)
  client.ftp.socket = socket
  const waiting = protocol === 'ftps-implicit' ? 'a greeting' : 'a greeting (or does it want TLS from the start?)'
  const greeting = await step('connect', 'connect', waiting, () =>
    replied(context, 'connect', 'connect', Promise.race([greetingOf(client), sshInstead(socket, context)])),
  )
  failures.learn({ greeting: greeting.message })
  if (protocol !== 'ftps') return
  const doing = 'switch to TLS'
  await step('tls', doing, 'an answer', () => replied(context, 'tls', doing, client.send('AUTH TLS')))
  client.ftp.socket = await secure(socket, context, step)
}

/** Nothing has been sent over the socket that this gives: it is trusted first. */
async function secure(socket: Socket, context: RemoteContext, step: Step): Promise<TLSSocket> {
  const { connection, failures } = context
  const doing = 'start TLS'
  const secured = startTls(socket, connection)
  await step('tls', doing, 'the TLS handshake', () => handshake(secured, failures, doing))
  const tls = tlsIdentity(secured)
  failures.learn({ tls })
  checkTrust(secured, connection, tls, failures)
  return secured
}

function greetingOf(client: Client): Promise<FTPResponse> {
  return client.ftp.handle(undefined, (response, task) => {
    if (response instanceof Error) task.reject(response)
    // 120 says that the server will be ready some time.
    else if (response.code >= 200 && response.code < 300) task.resolve(response)
    else task.reject(new FTPError(response))
  })
}

/** Rejects when the server is an SSH server, which else would be waited for in vain. */
function sshInstead(socket: Socket, { failures }: RemoteContext): Promise<never> {
  return new Promise((_, reject) => {
    socket.once('data', (chunk) => {
      if (!String(chunk).startsWith('SSH-')) return
      reject(failures.fail('connect', 'protocol', 'connect', 'what answers there is SSH: is the protocol sftp?'))
    })
  })
}

async function logIn(client: Client, context: RemoteContext, step: Step): Promise<void> {
  const { auth } = context.connection
  if (auth.kind !== 'password') throw new TypeError('FTP knows no keys, only passwords')
  const doing = `log in as "${auth.username}"`
  await step('login', doing, 'an answer', async () => {
    // Before the login, for its name and password; servers that do not know it say so.
    await replied(context, 'login', doing, client.sendIgnoringError('OPTS UTF8 ON'))
    await replied(context, 'login', doing, client.login(auth.username, auth.password))
  })
}

/** After the login: protection of the data, binary transfers, UTF-8, and what the server can do. */
async function settle(client: Client, context: RemoteContext, step: Step): Promise<FtpControl> {
  const { connection, failures } = context
  const must = (layer: RemoteLayer, doing: string, command: string) =>
    step(layer, doing, 'an answer', () => replied(context, layer, doing, client.send(command)))
  const may = (command: string) =>
    step('login', 'prepare the session', 'an answer', () =>
      replied(context, 'login', 'prepare the session', client.sendIgnoringError(command)),
    )
  if (connection.protocol !== 'ftp') {
    await may('PBSZ 0')
    await must('tls', 'protect the data connections', 'PROT P')
  }
  await must('login', 'switch to binary transfers', 'TYPE I')
  const features = await step('login', 'prepare the session', 'an answer', () =>
    replied(context, 'login', 'prepare the session', client.features()),
  )
  await may('OPTS UTF8 ON')
  // The name of both (RFC 3659, 7.8).
  const hasMlsx = features.has('MLST')
  if (hasMlsx) await may(FACTS)
  const pwd = await must('login', "ask for the login's directory", 'PWD')
  const home = quotedPath(pwd.message)
  if (home === undefined) {
    throw failures.fail(
      'login',
      'protocol',
      "read the login's directory",
      `the server says ${failures.quote(pwd.message)}`,
    )
  }
  return control(client, context, home, hasMlsx)
}

/** `257 "/a ""b""" is the directory`: quotes are doubled (RFC 959, appendix II). */
function quotedPath(message: string): string | undefined {
  const path = /"((?:[^"]|"")*)"/.exec(message)?.[1]?.replaceAll('""', '"')
  return path?.startsWith('/') ? path : undefined
}

function control(client: Client, context: RemoteContext, home: string, hasMlsx: boolean): FtpControl {
  const { clock, limits, failures } = context
  const opened: FtpControl = {
    context,
    client,
    home,
    hasMlsx,
    async wait(layer, doing, work, signal) {
      const ms = limits.idleTimeoutMs
      const late = () => failures.fail(layer, 'timeout', doing, `the server was silent for ${ms} ms`)
      try {
        return await bounded(work, { clock, ms, late, signal })
      } catch (error) {
        const failure = failureOf(context, layer, doing, error)
        // Somebody else's answer would come next.
        if (!(error instanceof FTPError) || failure.reason === 'closed') client.close()
        throw signal?.aborted ? signal.reason : failure
      }
    },
    ask: (layer, doing, command, signal) => opened.wait(layer, doing, sent(client.sendIgnoringError(command)), signal),
    command: (layer, doing, command, signal) => opened.wait(layer, doing, sent(client.send(command)), signal),
  }
  return opened
}

/** Rejections are handled even when the wait for them has ended. */
function sent<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {})
  return work
}

async function replied<T>(context: RemoteContext, layer: RemoteLayer, doing: string, work: Promise<T>): Promise<T> {
  try {
    return await work
  } catch (error) {
    throw failureOf(context, layer, doing, error)
  }
}

/** What an error of the FTP client stands for; failures pass as they are. */
function failureOf({ failures }: RemoteContext, layer: RemoteLayer, doing: string, error: unknown): RemoteFailure {
  if (error instanceof RemoteFailure) return error
  if (error instanceof FTPError) {
    const isLogin = layer === 'login' && error.code === 530
    const reason = isLogin ? 'denied' : CUT_CODES.includes(error.code) ? 'closed' : reasonOf(error.message)
    return failures.fail(layer, reason, doing, `the server says ${failures.quote(error.message)}`)
  }
  return failures.fail(layer, 'closed', doing, `the connection is gone (${failures.quote(messageOf(error))})`)
}

/** True when the control connection is protected, and so must be the data. */
export function isSecure(socket: Socket | TLSSocket): socket is TLSSocket {
  return 'encrypted' in socket
}
