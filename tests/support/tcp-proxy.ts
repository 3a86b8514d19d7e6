import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** A proxy on loopback through which a test's connections go, so that it can cut them at a chosen moment. */
export interface TcpProxy extends AsyncDisposable {
  readonly port: number
  /** The next answers of the server that hold `marker` are thrown away, and their connections cut. */
  cutAnswers(marker: string, times?: number): void
  /** Answers that were thrown away. */
  cuts(): number
  /** Cuts every connection at once. */
  cutAll(): void
}

export async function startTcpProxy(to: { host: string; port: number }): Promise<TcpProxy> {
  const sockets = new Set<Socket>()
  let marker = ''
  let left = 0
  let cuts = 0
  const server = createServer((client) => {
    const upstream = connect(to)
    for (const socket of [client, upstream]) {
      sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        sockets.delete(socket)
        client.destroy()
        upstream.destroy()
      })
    }
    client.on('data', (chunk) => upstream.write(chunk))
    upstream.on('data', (chunk) => {
      if (left > 0 && chunk.includes(marker)) {
        left--
        cuts++
        client.resetAndDestroy()
        return
      }
      client.write(chunk)
    })
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  return {
    port: (server.address() as AddressInfo).port,
    cutAnswers(text, times = 1) {
      marker = text
      left = times
    },
    cuts: () => cuts,
    cutAll() {
      for (const socket of sockets) socket.destroy()
    },
    async [Symbol.asyncDispose]() {
      const closed = new Promise((resolve) => server.close(resolve))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
