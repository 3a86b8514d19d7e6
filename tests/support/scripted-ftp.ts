import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer, TLSSocket } from 'node:tls'
import type { Certificate } from './certificates.ts'

/** What a server does that no real one will do on demand: lies, floods, and half of a protocol. */
export interface Script {
  /** Replies by command, without its line end; a server of its own mind when it gives `undefined`. */
  replies?: Record<string, string | ((argument: string, socket: Socket) => string | undefined)>
  greeting?: string
  /** The address in PASV's reply, 127.0.0.1 by default; that is where it listens anyway. */
  announcedHost?: string
  /** What LIST and RETR send; then the connection is closed. */
  data?: string | ((socket: Socket) => void)
  /** Knows AUTH TLS, with this certificate; data has `dataCertificate`. */
  tls?: { certificate: Certificate; dataCertificate?: Certificate }
}

export interface ScriptedFtp extends AsyncDisposable {
  readonly port: number
  /** The lines that clients have sent, in order. */
  readonly commands: string[]
}

const DEFAULTS: NonNullable<Script['replies']> = {
  USER: '331 password please',
  PASS: '230 welcome',
  FEAT: '211 nothing special',
  TYPE: '200 fine',
  PBSZ: '200 fine',
  PROT: '200 fine',
  PWD: '257 "/" is here',
  CWD: '250 entered',
  QUIT: '221 bye',
}

/** An FTP server that follows a script, on a free port of 127.0.0.1. */
export async function startScriptedFtp(script: Script): Promise<ScriptedFtp> {
  const commands: string[] = []
  const announced = (script.announcedHost ?? '127.0.0.1').replaceAll('.', ',')
  const sockets = new Set<Socket>()
  const keep = (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
  }
  const dataServer = script.tls
    ? createTlsServer(pemOf(script.tls.dataCertificate ?? script.tls.certificate))
    : createServer()
  const dataPort = await listen(dataServer)
  const taken: Socket[] = []
  const wanted: ((socket: Socket) => void)[] = []
  dataServer.on(script.tls ? 'secureConnection' : 'connection', (socket: Socket) => {
    keep(socket)
    const want = wanted.shift()
    if (want) want(socket)
    else taken.push(socket)
  })
  dataServer.on('tlsClientError', () => {})
  const nextData = () =>
    new Promise<Socket>((resolve) => {
      const socket = taken.shift()
      if (socket) resolve(socket)
      else wanted.push(resolve)
    })

  function serve(socket: Socket): void {
    keep(socket)
    let rest = ''
    socket.on('data', (bytes) => {
      const lines = (rest + bytes).split('\r\n')
      rest = lines.pop() ?? ''
      for (const line of lines) answer(socket, line)
    })
  }
  function answer(socket: Socket, line: string): void {
    commands.push(line)
    const [name = '', ...words] = line.split(' ')
    const reply = script.replies?.[name] ?? DEFAULTS[name]
    if (reply !== undefined) {
      const text = typeof reply === 'string' ? reply : reply(words.join(' '), socket)
      if (text !== undefined) socket.write(`${text}\r\n`)
      return
    }
    switch (name) {
      case 'AUTH':
        upgrade(socket)
        return
      case 'EPSV':
        return void socket.write(`229 here (|||${dataPort}|)\r\n`)
      case 'PASV':
        return void socket.write(`227 here (${announced},${dataPort >> 8},${dataPort & 255})\r\n`)
      case 'LIST':
      case 'RETR':
        return void sendData(socket)
      default:
        socket.write('500 what?\r\n')
    }
  }
  function upgrade(socket: Socket): void {
    if (!script.tls) {
      socket.write('502 no TLS here\r\n')
      return
    }
    socket.write('234 go on\r\n')
    socket.removeAllListeners('data')
    serve(new TLSSocket(socket, { isServer: true, ...pemOf(script.tls.certificate) }))
  }
  async function sendData(socket: Socket): Promise<void> {
    socket.write('150 here it comes\r\n')
    const data = await nextData()
    if (typeof script.data === 'function') return script.data(data)
    data.end(script.data ?? '', () => socket.write('226 that is all\r\n'))
  }

  const server = createServer((socket) => {
    socket.write(`${script.greeting ?? '220 hello'}\r\n`)
    serve(socket)
  })
  const port = await listen(server)
  return {
    port,
    commands,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await Promise.all([server, dataServer].map((each) => new Promise((resolve) => each.close(resolve))))
    },
  }
}

function pemOf({ certFile, keyFile }: Certificate) {
  return { cert: readFileSync(certFile), key: readFileSync(keyFile) }
}

function listen(server: Server): Promise<number> {
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port))
  })
}
