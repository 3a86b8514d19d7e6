import { createServer } from 'node:net'

/*
 * Ports for servers that are killed and started again: from below the range that outgoing connections take theirs from, so
 * that nobody sits on one while its server is down.
 */
const LOWEST = 20_000
const HIGHEST = 32_000

/** A port of loopback that was free just now and that no outgoing connection takes. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST))
    if (await isFree(port)) return port
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer().once('error', () => resolve(false))
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)))
  })
}
