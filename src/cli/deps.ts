import type { Assets } from '../runtime/assets.ts'
import type { Logger, LogLevel, Secret } from '../runtime/log.ts'

/** The settings that commands read; src/config.ts, which they may not import, makes them. */
export interface Settings {
  readonly databaseUrl: Secret | undefined
  /** Absolute, as is `handlersDir`. */
  readonly dataDir: string
  readonly handlersDir: string
  readonly host: string
  readonly port: number
  readonly logLevel: LogLevel
  /** LONGSHORE_URL and LONGSHORE_KEY. */
  readonly apiUrl: string | undefined
  readonly apiKey: Secret | undefined
  readonly amqpUrl: Secret | undefined
  /** LONGSHORE_SECRET_KEY. */
  readonly secretKeys: Secret | undefined
}

/** Settings by variable name that count before the environment. */
export type Overrides = Readonly<Record<string, string | undefined>>

/** A node that runs. */
export interface RunningNode {
  readonly url: string | undefined
  stop(): Promise<void>
}

/** A configuration that was read, and the node that it describes. */
export interface Installation {
  readonly settings: Settings
  /** Starts the node; when it cannot, or `signal` aborts before it runs, it rejects with nothing left running. */
  start(log: Logger, signal?: AbortSignal): Promise<RunningNode>
  /** Starts a worker without a database for the server at `place`; else as `start`. */
  startWorker(place: { url: string; key: string }, log: Logger, signal?: AbortSignal): Promise<RunningNode>
}

/** What the commands get from main.ts. */
export interface CliDeps {
  /** Reads the configuration; rejects with all its mistakes (`mistakesOf`). */
  load(overrides?: Overrides): Promise<Installation>
  /** The file of a worker thread. */
  threadUrl: URL
  /** Postgres's programs inside the compiled binary; undefined from source. */
  packedPostgres: Assets['postgres'] | undefined
}
