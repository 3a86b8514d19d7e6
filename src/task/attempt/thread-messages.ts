import type { EgressRules } from '../../runtime/egress/rules.ts'
import type { Execution, Report } from '../executor.ts'
import type { Outcome } from '../outcome.ts'
import type { Question, Reply } from './question.ts'

/*
 * What the thread pool and a thread say to each other. Each message is the JSON text of one batch: a string crosses
 * about twice as fast as the same objects cloned. An ordinal names one run within its thread, in the order of sending.
 */

/** What a thread needs to run targets; plain JSON. */
export interface ThreadSettings {
  /** Absolute path of the folder with handlers; null: there are none. */
  handlersDir: string | null
  egress: EgressRules
  /** Absolute path of the folder below which csv targets write. */
  outDir: string
  /** Where table targets write; null: this process has no database for them. */
  tables: TableSettings | null
}

/** The database of table targets. It carries a password: never in a log line, an error or an outcome. */
export interface TableSettings {
  connection:
    | { readonly url: string }
    | {
        readonly socketDir: string
        readonly port: number
        readonly user: string
        readonly password: string
        readonly database: string
      }
  /** The schema of tables that are named without one. */
  schema: string
  /** Only that schema may be written, and it is made when it is missing: the rest is the ledger's. */
  onlySchema: boolean
}

/** A thread's `workerData`. */
export interface ThreadData {
  settings: ThreadSettings
  /** Int32 cells that the pool can read while the thread's event loop stands still. */
  cells: SharedArrayBuffer
}

/** Indices of the shared cells. */
export const CELL = {
  /** Ordinal of the last run whose target was started; runs start in the order of sending. */
  started: 0,
  /** Rises about every 100 ms while tasks run and the event loop turns. */
  turns: 1,
  /** Ordinal of the run whose user code holds the event loop just now; 0: none, or not known. */
  holder: 2,
} as const

export const CELL_BYTES = 3 * Int32Array.BYTES_PER_ELEMENT

export interface ToThread {
  runs: [ordinal: number, execution: Execution][]
  cancels: number[]
  /** By the number of the question. */
  replies: [number: number, reply: Reply][]
}

/** Reports are told before the ends that come with them, questions after both. A thread's first message is empty: it is up. */
export interface FromThread {
  reports: Report[]
  ends: [ordinal: number, outcome: Outcome][]
  /** With the ordinal of the run that asks; 0 is the thread itself. */
  questions: [ordinal: number, number: number, question: Question][]
}

/** The ordinal after `ordinal`; it wraps at 32 bits and is never 0. */
export function nextOrdinal(ordinal: number): number {
  return (ordinal + 1) | 0 || 1
}

/** Whether `ordinal` was sent no later than `last`, across a wrap. */
export function isUpTo(ordinal: number, last: number): boolean {
  return ((last - ordinal) | 0) >= 0
}

/** The `workerData` of a thread that runs nothing and looks at the handlers' folder: at all of it, or at one handler. */
export interface HandlerCheck {
  handlersDir: string
  handler?: string
}

/** A file in the handlers' folder: a handler, or why it is none. */
export type HandlerFile = { file: string; name: string } | { file: string; problem: string }

/** What loading a handler came to. */
export interface HandlerFinding {
  problem?: string
}
