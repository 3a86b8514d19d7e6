import { messageOf } from '../runtime/errors.ts'
import { type Logger, type LogLevel, openLog } from '../runtime/log.ts'
import type { RunningNode } from './deps.ts'
import { EXIT, verdictOf } from './failure.ts'

/** A process that works until it is told to stop. */
export interface LongRun<L> {
  /** Reads what is to be run; a rejection is told, with its exit code. */
  load(): Promise<L>
  logLevel(loaded: L): LogLevel
  /** Rejects with nothing left running when it cannot start, or `signal` aborts before it runs. */
  start(loaded: L, log: Logger, signal: AbortSignal): Promise<RunningNode>
  /** What is said when it runs. */
  told(node: RunningNode, loaded: L): string
  /** Why it could not start, in a sentence, and the exit code; by default the error's message and 1. */
  verdict?(error: unknown): Promise<{ why: string; exitCode: number }>
}

/**
 * Starts it and ends it in order on SIGTERM or SIGINT: also while it starts, when nothing half-done is left. A second
 * signal ends the process at once.
 */
export async function runUntilStopped<L>(run: LongRun<L>): Promise<void> {
  const asked = stopSignal()
  let loaded: L
  try {
    loaded = await run.load()
  } catch (error) {
    const { message, exitCode } = verdictOf(error)
    process.stderr.write(`${message}\n`)
    process.exit(exitCode)
  }
  const log = await openLog(run.logLevel(loaded))
  process.on('unhandledRejection', (error) => {
    log.fatal(
      { event: 'unhandled-rejection', error: messageOf(error) },
      'A bug: the process ends, its work is sent again',
    )
    process.exit(EXIT.failed)
  })
  try {
    const node = await run.start(loaded, log, asked.signal)
    log.info({ event: 'listening', url: node.url }, run.told(node, loaded))
    log.info({ event: 'stopping', signal: await asked.name }, 'Ends the work in hand')
    await node.stop()
    log.info({ event: 'stopped' })
    process.exit(0)
  } catch (error) {
    if (asked.signal.aborted) {
      log.info({ event: 'stopped', signal: await asked.name, reason: messageOf(error) }, 'Stopped while it started')
      process.exit(0)
    }
    const { why, exitCode } = (await run.verdict?.(error)) ?? { why: messageOf(error), exitCode: EXIT.failed }
    log.fatal({ event: 'start-failed', error: messageOf(error) }, `Cannot start: ${why}`)
    process.exit(exitCode)
  }
}

/** The first signal to stop, as its name and as an abort; the second one ends the process. */
function stopSignal(): { name: Promise<string>; signal: AbortSignal } {
  const controller = new AbortController()
  const name = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (controller.signal.aborted) process.exit(EXIT.failed)
        resolve(signal)
        controller.abort()
      })
    }
  })
  return { name, signal: controller.signal }
}
