import type { RemoteConnection } from '../../src/files/remote-files.ts'
import { type Fault, type FaultProxy, startFaultProxy } from './fault-proxy.ts'
import type { FileServer } from './ftp-servers.ts'

/** The address that proxies listen on: at the servers' own ports, so that what a server says about its ports stays true. */
const HOST = '127.0.0.2'

/** A file server behind proxies, its data connections too. */
export interface ProxiedServer extends AsyncDisposable {
  /** Leads through the proxies. */
  readonly connection: RemoteConnection
  /** The control connection, or for SFTP the only one. */
  readonly control: FaultProxy
  /** For what carries files and listings: FTP's data connections, or for SFTP the only one. */
  setDataFault(fault: Fault): void
  /** Connections that are open now. */
  readonly open: number
}

export async function startProxies(server: FileServer): Promise<ProxiedServer> {
  const inFrontOf = (port: number) => startFaultProxy({ host: '127.0.0.1', port }, { host: HOST, port })
  const control = await inFrontOf(server.port)
  const data = await Promise.all(server.dataPorts.map(inFrontOf))
  const all = [control, ...data]
  return {
    connection: { ...server.connection, host: HOST },
    control,
    setDataFault(fault) {
      for (const proxy of data.length > 0 ? data : [control]) proxy.setFault(fault)
    },
    get open() {
      return all.reduce((sum, proxy) => sum + proxy.open, 0)
    },
    async [Symbol.asyncDispose]() {
      await Promise.all(all.map((proxy) => proxy[Symbol.asyncDispose]()))
    },
  }
}
