import { v7 as uuidv7 } from 'uuid'
import { startApi } from './app/api.ts'
import { openLedger, tellAdminKey } from './app/ledger.ts'
import { startNode } from './app/node.ts'
import type { Stops } from './app/stops.ts'
import type { Config } from './config.ts'
import type { Assets } from './runtime/assets.ts'
import { messageOf } from './runtime/errors.ts'
import type { Logger } from './runtime/log.ts'
import { ensureBuiltIn } from './store/built-in.ts'

/** A node at work. */
export interface App {
  /** Where the API listens; undefined without the role `api`. */
  readonly url: string | undefined
  /** Takes nothing new, ends the work in hand until the configured deadline, gives the rest back, leaves. */
  stop(): Promise<void>
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
  const stop = async () => {
    for (const end of stops.splice(0).reverse()) {
      await end().catch((error) => log.error({ event: 'stop-failed', error: messageOf(error) }, 'Cannot stop in order'))
    }
  }
  try {
    const database = await openLedger(config, log, stops, assets, signal)
    await ensureBuiltIn(database.pool, uuidv7())
    await tellAdminKey(config, log, database)
    const node = await startNode(config, log, threadUrl, database, stops)
    const url = config.roles.includes('api') ? await startApi(config, log, database, node, stops, assets) : undefined
    return { url, stop }
  } catch (error) {
    await stop()
    throw error
  }
}
