import { startApi } from './app/api.ts'
import { openLedger, tellAdminKey } from './app/ledger.ts'
import { startNode } from './app/node.ts'
import { runStops, type Stops } from './app/stops.ts'
import type { Config } from './config.ts'
import type { Assets } from './runtime/assets.ts'
import type { Logger } from './runtime/log.ts'
import { ensureTopology, type WantedTopology } from './store/topology/ensure.ts'
import { DEFAULT_QUEUE } from './task/topology/queue.ts'

/** A node at work. */
export interface App {
  /** Where the API listens; undefined without the role `api`. */
  readonly url: string | undefined
  /** Takes nothing new, ends the work in hand until the configured deadline, gives the rest back, leaves. */
  stop(): Promise<void>
}

/** Made at the first start: the queue that is always there, with a consumer that delivers to each task's own target. */
const BUILT_IN: WantedTopology = {
  queues: [
    {
      name: DEFAULT_QUEUE,
      consumers: [{ target: { type: 'task' }, concurrency: 50, timeoutMs: 30_000, paused: false }],
    },
  ],
}

/**
 * Starts a node as `config` says; when it cannot, it rejects with nothing left running. `assets` are the files inside the
 * compiled binary; from source they are those of the installed packages. An aborted `signal` ends the start.
 */
export async function startApp(
  config: Config,
  log: Logger,
  threadUrl: URL,
  assets?: Assets,
  signal?: AbortSignal,
): Promise<App> {
  const stops: Stops = []
  const stop = () => runStops(stops, log)
  try {
    const database = await openLedger(config, log, stops, assets, signal)
    await ensureTopology(database.db, BUILT_IN)
    await tellAdminKey(config, log, database)
    const node = await startNode(config, log, threadUrl, database, stops)
    const url = config.roles.includes('api') ? await startApi(config, log, database, node, stops, assets) : undefined
    return { url, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
