import { createSocket, type Socket } from 'node:dgram'
import { createServer } from 'node:net'

/*
 * Ports for servers that are killed and started again: from below the range that outgoing connections take theirs from, so
 * that nobody sits on one while its server is down.
 */
const LOWEST = 20_000
const HIGHEST = 32_000

/** Keeps the ports that were given from every test process until this one ends; UDP, so that no TCP server is in their way. */
const keepers: Socket[] = []

/** A port of loopback that is free, that no outgoing connection takes and that no other test is given. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST))
    const keeper = await keep(port)
    if (!keeper) continue
    if (await isFree(port)) {
      keepers.push(keeper)
      return port
    }
    keeper.close()
  }
}

function keep(port: number): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const keeper = createSocket('udp4')
    keeper.once('error', () => {
      keeper.close()
      resolve(undefined)
    })
    keeper.bind({ port, address: '127.0.0.3', exclusive: true }, () => {
      keeper.unref()
      resolve(keeper)
    })
  })
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer().once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
