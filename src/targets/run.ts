import type { RunTarget } from '../task/attempt.ts'
import type { ThreadSettings } from '../task/thread-messages.ts'
import { createHandlerTarget } from './handler.ts'
import { createNoopTarget } from './noop.ts'

/** Runs any target by its type. Make it once per thread: the HTTP target keeps its connections, the handler target its files. */
export function createRunTarget(settings: ThreadSettings): RunTarget {
  const noop = createNoopTarget()
  const handler = createHandlerTarget({ dir: settings.handlersDir })
  let http: Promise<RunTarget> | undefined

  /** Loaded on first use: a thread that sends no request does not pay for the client. */
  async function loadHttp(): Promise<RunTarget> {
    const [{ createHttpTarget }, { createEgress }] = await Promise.all([
      import('./http.ts'),
      import('../runtime/egress.ts'),
    ])
    return createHttpTarget({ egress: createEgress(settings.egress) })
  }

  return (execution, context) => {
    const { target } = execution
    switch (target.type) {
      case 'noop':
        return noop(execution, context)
      case 'handler':
        return handler(execution, context)
      case 'http':
        http ??= loadHttp()
        return http.then((run) => run(execution, context))
      default:
        return target satisfies never
    }
  }
}
