import type { Periodic } from './periodic.ts'

/** A long-running part of a node. `stop` returns when nothing of it runs any more. */
export interface Service {
  /** What it does again and again. */
  readonly periodic?: readonly Periodic[]
  start(): Promise<void>
  stop(): Promise<void>
}
