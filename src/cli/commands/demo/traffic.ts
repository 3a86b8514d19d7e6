import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pause, realClock } from '../../../runtime/clock.ts'
import type { Client } from '../../client.ts'
import { Refusal } from '../../client.ts'

/** A function that the demo's tasks call, as a user would write it. */
export const REPORT_HANDLER = `// Called for each task of the queue "reports".
export default async (payload, { log, progress }) => {
  for (let page = 1; page <= payload.pages; page++) {
    await new Promise((resolve) => setTimeout(resolve, 40))
    progress({ done: page, total: payload.pages })
  }
  if (payload.pages === 5) throw new Error('The printer is out of paper')
  log('printed ' + payload.pages + ' pages')
  return { pages: payload.pages }
}
`

const RETRY = { maxAttempts: 4, backoff: { kind: 'exponential', base: '300ms', max: '3s' } }

/** An API that the tasks call: mostly well, sometimes down, sometimes with a no. */
export function startUnsteadyApi(): Promise<{ url: string; close(): Promise<void> }> {
  const server: Server = createServer((request, response) => {
    request.resume().on('end', () => {
      const dice = Math.random()
      response.statusCode = dice < 0.2 ? 503 : dice < 0.23 ? 404 : 200
      setTimeout(() => response.end('{}'), 5 + Math.random() * 60)
    })
  })
  return new Promise((resolve) => {
    server.listen(0, '127.0.0.1', () => {
      resolve({
        url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/orders`,
        close: () =>
          new Promise((closed) => {
            server.close(() => closed())
            server.closeAllConnections()
          }),
      })
    })
  })
}

/** Makes the demo's queues, their consumers and a schedule. */
export async function prepareDemo(client: Client, apiUrl: string): Promise<void> {
  const lines = [
    { queue: 'orders', target: { type: 'http', url: apiUrl }, concurrency: 20 },
    { queue: 'reports', target: { type: 'handler', name: 'report' }, concurrency: 5 },
    { queue: 'thumbnails', target: { type: 'noop', delay: '20ms', failRate: 0.05 }, concurrency: 10 },
  ]
  for (const { queue, ...consumer } of lines) {
    await client.call('PUT', `/queues/${queue}`, { retry: RETRY })
    await client.call('POST', '/consumers', { queue, ...consumer })
  }
  await client.call('PUT', '/schedules/every-three-seconds', {
    cron: '*/3 * * * * *',
    task: { queue: 'reports', type: 'report.scheduled', payload: { pages: 2 } },
  })
}

const EVERY_MS = 200

/** Submits tasks in waves until `signal` aborts; rejects when the node takes none. */
export async function submitTraffic(client: Client, signal: AbortSignal): Promise<void> {
  for (let wave = 0; !signal.aborted; wave++) {
    // A swell over about ten seconds: the queues fill and drain.
    const orders = Math.round(10 + 10 * Math.sin(wave / 8))
    const tasks = [
      ...several(orders, (n) => ({ queue: 'orders', type: 'order.placed', payload: { order: wave * 100 + n } })),
      ...several(1 + (wave % 2), () => ({
        queue: 'reports',
        type: 'report.asked',
        payload: { pages: 1 + (wave % 5) },
      })),
      ...several(15, (n) => ({ queue: 'thumbnails', payload: { image: `${wave}-${n}.jpg` }, priority: n % 3 })),
    ]
    try {
      await client.call('POST', '/tasks/batch', tasks)
    } catch (error) {
      // The node may say "not now" when it stops.
      if (!signal.aborted && !(error instanceof Refusal && error.status === 503)) throw error
    }
    await pause(realClock, EVERY_MS, signal)
  }
}

function several<T>(count: number, make: (n: number) => T): T[] {
  return Array.from({ length: count }, (_, n) => make(n))
}
