import pg from 'pg'
import { pause, realClock } from '../../runtime/clock.ts'

const TOO_MANY_CONNECTIONS = '53300'
const RETRY_MS = 250

type Connected = (error: Error | undefined, client: pg.PoolClient | undefined, done: () => void) => void

/**
 * A pool that is told by the server that there is no connection to spare goes on with those that it has, or waits for one, as
 * long as it waits for any: other nodes and programs come and go. Without that, a node that starts just then would end.
 */
export class PatientPool extends pg.Pool {
  readonly #waitMs: number

  constructor(config: pg.PoolConfig & { connectionTimeoutMillis: number }) {
    super(config)
    this.#waitMs = config.connectionTimeoutMillis
  }

  override connect(): Promise<pg.PoolClient>
  override connect(callback: Connected): void
  override connect(callback?: Connected): Promise<pg.PoolClient> | undefined {
    const connecting = this.#connect()
    if (!callback) return connecting
    connecting.then(
      (client) => callback(undefined, client, () => client.release()),
      (error) => callback(error, undefined, () => {}),
    )
    return undefined
  }

  async #connect(): Promise<pg.PoolClient> {
    const deadline = realClock.now() + this.#waitMs
    for (;;) {
      try {
        return await super.connect()
      } catch (error) {
        if ((error as { code?: unknown }).code !== TOO_MANY_CONNECTIONS || realClock.now() > deadline) throw error
      }
      await pause(realClock, RETRY_MS)
    }
  }
}
