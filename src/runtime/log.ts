import { type DestinationStream, pino } from 'pino'
import type { LogEvent } from './log-events.ts'

/** What a line tells beside its message: the event's name from the one list, and the ids that it is about. Never a payload. */
export type LogFields = { event: LogEvent } & Record<string, unknown>

export type LogCall = (fields: LogFields, message?: string) => void

/** Where a node tells what happens to it. */
export interface Logger {
  fatal: LogCall
  error: LogCall
  warn: LogCall
  info: LogCall
  debug: LogCall
}

/** A value that no log line, message or response may show. */
export class Secret {
  readonly #value: string

  constructor(value: string) {
    this.#value = value
  }

  /** The plain value; call it only where it is used, never to print it. */
  reveal(): string {
    return this.#value
  }

  toString(): string {
    return '[secret]'
  }

  toJSON(): string {
    return '[secret]'
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return '[secret]'
  }
}

export const LOG_LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

const onEveryLine = new WeakMap<Logger, () => Record<string, unknown>>()

/** JSON lines to standard output (or `stream`): `level`, `time` (RFC 3339), `event`, ids and a message. */
export function createLog(level: LogLevel, stream?: DestinationStream): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
    mixin: (): Record<string, unknown> => onEveryLine.get(log)?.() ?? {},
  }
  const log: Logger = stream ? pino(options, stream) : pino(options)
  return log
}

/** As `createLog`; on a terminal the lines are written for people. */
export async function openLog(level: LogLevel, terminal: boolean = process.stdout.isTTY): Promise<Logger> {
  if (!terminal) return createLog(level)
  // Loaded for a person only, and as a stream of this thread: a transport's thread is not found by a compiled binary.
  const { default: pretty } = await import('pino-pretty')
  return createLog(level, pretty({ sync: true, translateTime: 'SYS:HH:MM:ss.l', messageKey: 'msg', singleLine: true }))
}

/** From now on every line of `log` (one of `createLog`) tells these fields, too; the line's own win. */
export function tellOnEveryLine(log: Logger, fields: () => Record<string, unknown>): void {
  onEveryLine.set(log, fields)
}
