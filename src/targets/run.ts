import { realClock } from '../runtime/clock.ts'
import type { RunTarget } from '../task/attempt/attempt.ts'
import type { Ask } from '../task/attempt/question.ts'
import type { ThreadSettings } from '../task/attempt/thread-messages.ts'
import type { Target } from '../task/target/target.ts'
import { createHandlerTarget } from './handler.ts'
import { createNoopTarget } from './noop.ts'
import { publishTarget } from './publish.ts'

/**
 * Runs any target by its type. Make it once per thread: targets keep their connections and files. `ask` asks the ledger's
 * side for the thread itself.
 */
export function createRunTarget(settings: ThreadSettings, ask: Ask): RunTarget {
  /** These are loaded on first use: a thread that sends no request does not pay for the client. */
  const load = {
    async http() {
      const [{ createHttpTarget }, { createEgress }] = await Promise.all([
        import('./http.ts'),
        import('../runtime/egress/egress.ts'),
      ])
      return createHttpTarget({ egress: createEgress(settings.egress) })
    },
    async table() {
      const { createTableTarget } = await import('./table/target.ts')
      return createTableTarget({ tables: settings.tables })
    },
    async csv() {
      const { createCsvTarget } = await import('./csv/target.ts')
      return createCsvTarget({ outDir: settings.outDir, ask })
    },
    async import() {
      const { createImportTarget } = await import('./import/target.ts')
      return createImportTarget({ clock: realClock })
    },
  }
  const loaded = new Map<keyof typeof load, Promise<RunTarget>>()
  const targets: Record<Exclude<Target['type'], keyof typeof load>, RunTarget> = {
    noop: createNoopTarget(),
    handler: createHandlerTarget({ dir: settings.handlersDir }),
    publish: publishTarget,
  }

  return (execution, context) => {
    const { type } = execution.target
    if (type === 'http' || type === 'table' || type === 'csv' || type === 'import') {
      const target = loaded.get(type) ?? load[type]()
      loaded.set(type, target)
      return target.then((run) => run(execution, context))
    }
    return targets[type](execution, context)
  }
}
