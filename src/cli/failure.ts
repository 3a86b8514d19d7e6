import { messageOf } from '../runtime/errors.ts'

/** What a command ends with, beside 0. */
export const EXIT = {
  /** It was tried and did not work out. */
  failed: 1,
  /** The command line or the configuration cannot be understood. */
  usage: 2,
  /** Nobody answers where Longshore or its database should be. */
  unreachable: 3,
} as const

/** Ends the command with a sentence for people and an exit code. */
export class Failure extends Error {
  override readonly name = 'Failure'

  constructor(
    message: string,
    readonly exitCode: (typeof EXIT)[keyof typeof EXIT] = EXIT.failed,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** Each mistake of the configuration; undefined when the error is about something else. */
export function mistakesOf(error: unknown): readonly { name: string; message: string }[] | undefined {
  const { name, mistakes } = error as { name?: unknown; mistakes?: readonly { name: string; message: string }[] }
  return name === 'ConfigError' ? mistakes : undefined
}

/** How an error that ended a command is told, and its exit code. */
export function verdictOf(error: unknown): { message: string; exitCode: number } {
  if (error instanceof Failure) return { message: error.message, exitCode: error.exitCode }
  if (mistakesOf(error)) return { message: messageOf(error), exitCode: EXIT.usage }
  return { message: messageOf(error), exitCode: EXIT.failed }
}
