import { type AddressInfo, createConnection, createServer, type Socket } from 'node:net'

/** Which way bytes go: what the server says, or what the client says. */
export type Direction = 'from-server' | 'from-client'

/**
 * What happens to a connection. Bytes are counted per connection and direction, from when it was opened or, for one that was
 * open already, from when the fault was set.
 * `cut`: both sides are reset. `hang`: nothing is forwarded any more, and everything stays open. `delay`: what comes in
 * waits `ms` before it goes on. `refuse`: new connections are reset at once, open ones stay.
 */
export type Fault =
  | { kind: 'none' }
  | { kind: 'cut'; afterBytes: number; direction?: Direction }
  | { kind: 'hang'; afterBytes: number; direction?: Direction }
  | { kind: 'delay'; ms: number }
  | { kind: 'refuse' }

/** A TCP proxy on loopback that can do to connections what networks do. */
export interface FaultProxy extends AsyncDisposable {
  readonly host: string
  readonly port: number
  /** Connections that it has taken so far. */
  readonly accepted: number
  /** Connections that are open now. */
  readonly open: number
  /** Bytes forwarded so far, over all connections. */
  readonly forwarded: Record<Direction, number>
  /** From now on, for open connections and new ones; what hung goes on with `none`. */
  setFault(fault: Fault): void
  /** Resets every open connection. */
  cutAll(): void
}

export interface Address {
  host: string
  port: number
}

/** Listens in front of `upstream`, on a free port of 127.0.0.1 unless told otherwise. */
export async function startFaultProxy(
  upstream: Address,
  { host = '127.0.0.1', port = 0 }: Partial<Address> = {},
): Promise<FaultProxy> {
  let fault: Fault = { kind: 'none' }
  let accepted = 0
  const links = new Set<Link>()
  const forwarded: Record<Direction, number> = { 'from-server': 0, 'from-client': 0 }

  const server = createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    accepted++
    // Reset, not closed: what a firewall or a dead host does.
    if (fault.kind === 'refuse') return void client.on('error', () => {}).resetAndDestroy()
    const server = createConnection({ ...upstream, noDelay: true, allowHalfOpen: true })
    const link: Link = new Link(client, server, forwarded, () => links.delete(link))
    link.setFault(fault)
    links.add(link)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, host, resolve)
  })
  return {
    host,
    port: (server.address() as AddressInfo).port,
    get accepted() {
      return accepted
    },
    get open() {
      return links.size
    },
    forwarded,
    setFault(next) {
      fault = next
      for (const link of links) link.setFault(next)
    },
    cutAll() {
      for (const link of links) link.cut()
    },
    async [Symbol.asyncDispose]() {
      for (const link of links) link.cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** One connection through the proxy. */
class Link {
  readonly #sides: readonly Socket[]
  readonly #lanes: readonly Lane[]
  readonly #onEnd: () => void

  constructor(client: Socket, server: Socket, forwarded: Record<Direction, number>, onEnd: () => void) {
    this.#sides = [client, server]
    this.#onEnd = onEnd
    const cut = () => this.cut()
    this.#lanes = [
      new Lane('from-client', client, server, forwarded, cut),
      new Lane('from-server', server, client, forwarded, cut),
    ]
    for (const side of this.#sides) side.on('error', cut)
    void Promise.all(this.#lanes.map((lane) => lane.pump())).then(() => {
      for (const side of this.#sides) side.destroy()
      onEnd()
    })
  }

  setFault(fault: Fault): void {
    for (const lane of this.#lanes) lane.setFault(fault)
  }

  cut(): void {
    for (const side of this.#sides) if (!side.destroyed) side.resetAndDestroy()
    this.setFault({ kind: 'none' })
    this.#onEnd()
  }
}

/** One direction of a connection. */
class Lane {
  readonly #direction: Direction
  readonly #from: Socket
  readonly #to: Socket
  readonly #forwarded: Record<Direction, number>
  readonly #cut: () => void
  #fault: Fault = { kind: 'none' }
  #sinceFault = 0
  #changed = Promise.withResolvers<void>()

  constructor(direction: Direction, from: Socket, to: Socket, forwarded: Record<Direction, number>, cut: () => void) {
    this.#direction = direction
    this.#from = from
    this.#to = to
    this.#forwarded = forwarded
    this.#cut = cut
  }

  setFault(fault: Fault): void {
    const isOther = 'direction' in fault && fault.direction !== undefined && fault.direction !== this.#direction
    this.#fault = isOther ? { kind: 'none' } : fault
    this.#sinceFault = 0
    this.#changed.resolve()
    this.#changed = Promise.withResolvers()
  }

  /** Forwards until the end, no faster than the other side takes it. */
  async pump(): Promise<void> {
    try {
      // Not destroyed at its end: the other direction may go on.
      for await (const bytes of this.#from.iterator({ destroyOnReturn: false })) await this.#pass(bytes as Buffer)
      while (this.#fault.kind === 'hang') await this.#changed.promise
      this.#to.end()
    } catch {
      this.#cut()
    }
  }

  async #pass(bytes: Buffer): Promise<void> {
    let rest = bytes
    while (rest.length > 0) {
      const fault = this.#fault
      switch (fault.kind) {
        case 'none':
        case 'refuse':
          return this.#send(rest)
        case 'delay':
          await Promise.race([new Promise((resolve) => setTimeout(resolve, fault.ms)), this.#changed.promise])
          return this.#send(rest)
        case 'cut':
        case 'hang': {
          const allowed = rest.subarray(0, Math.max(0, fault.afterBytes - this.#sinceFault))
          rest = rest.subarray(allowed.length)
          this.#sinceFault += allowed.length
          await this.#send(allowed)
          if (this.#sinceFault < fault.afterBytes) break
          if (fault.kind === 'cut') return this.#cut()
          if (this.#fault === fault) await this.#changed.promise
          break
        }
        default:
          return fault satisfies never
      }
    }
  }

  /** Resolves when the bytes have been handed to the system. */
  async #send(bytes: Buffer): Promise<void> {
    if (bytes.length === 0) return
    this.#forwarded[this.#direction] += bytes.length
    await new Promise<void>((resolve, reject) => this.#to.write(bytes, (error) => (error ? reject(error) : resolve())))
  }
}
