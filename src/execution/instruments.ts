import type { Clock } from '../runtime/clock.ts'
import type { Metrics } from '../runtime/telemetry/metrics.ts'
import { attemptContext, formatTraceparent, parseTraceparent } from '../runtime/telemetry/traceparent.ts'
import type { Span, Tracing } from '../runtime/telemetry/tracing.ts'
import type { Execution, Executor } from '../task/executor.ts'
import type { Ledger, Settled, Settlement } from '../task/ledger.ts'
import type { Outcome } from '../task/outcome.ts'
import type { ClaimedTask } from '../task/task.ts'

export interface InstrumentDeps {
  clock: Clock
  metrics: Metrics
  tracing: Tracing
  /** Says that these tasks were changed and committed; `isHeard` tells beforehand whether anybody wants to know. */
  touched(ids: Iterable<string>): void
  isHeard(): boolean
}

/** Measures, traces and tells what passes through the seams of a node, without a word of it in what does the work. */
export interface Instruments {
  ledger(ledger: Ledger): Ledger
  executor(executor: Executor): Executor
  claims<R extends { queue: string }>(
    claim: (request: R) => Promise<ClaimedTask[]>,
  ): (request: R) => Promise<ClaimedTask[]>
  /** Tasks that one commit has stored. */
  submitted(ids: readonly string[]): void
}

export function createInstruments(deps: InstrumentDeps): Instruments {
  const { clock, metrics, tracing } = deps

  function tell(tasks: readonly { id: string }[]): void {
    if (deps.isHeard()) deps.touched(tasks.map((task) => task.id))
  }

  function countClaims(queue: string, tasks: readonly ClaimedTask[]): void {
    if (tasks.length === 0) return
    metrics.batch('claim', tasks.length)
    metrics.waited(
      queue,
      tasks.map((task) => task.waitedMs ?? 0),
    )
    tell(tasks)
  }

  function countEnds(settlements: readonly Settlement[], settled: readonly Settled[]): void {
    metrics.batch('settle', settlements.length)
    // Most of a batch is alike: one count for each kind of end instead of one a task.
    const counts = new Map<string, { queue: string; status: string; outcome: string; count: number }>()
    for (const [index, { queue, outcome }] of settlements.entries()) {
      const end = settled[index]
      const status = end && !end.late ? end.status : 'late'
      const key = `${queue} ${status} ${outcome.kind}`
      const same = counts.get(key)
      if (same) same.count++
      else counts.set(key, { queue, status, outcome: outcome.kind, count: 1 })
    }
    for (const { queue, status, outcome, count } of counts.values()) {
      if (status === 'late') metrics.late(queue, count)
      else metrics.finished(queue, status, outcome, count)
    }
  }

  /** The attempt as its target gets it, with a trace context of its own. */
  function traced(execution: Execution): {
    execution: Execution
    attempt: Span | undefined
    request: Span | undefined
  } {
    const { id, target, traceparent } = execution
    // Only these two pass it on; for the others it would cost and serve nobody.
    if (!tracing.exporting && target.type !== 'http' && target.type !== 'handler') {
      return { execution, attempt: undefined, request: undefined }
    }
    const attempt = tracing.start(`attempt ${execution.queue}`, 'consumer', parseTraceparent(traceparent), {
      'longshore.task.id': id,
      'longshore.queue': execution.queue,
      'longshore.attempt': execution.attempt,
      'longshore.target': target.type,
      ...(execution.type !== null && { 'longshore.task.type': execution.type }),
    })
    const request =
      attempt && target.type === 'http'
        ? tracing.start(`http request ${target.method ?? 'POST'}`, 'client', attempt.context, {
            'http.request.method': target.method ?? 'POST',
            'server.address': URL.parse(target.url)?.hostname ?? '',
          })
        : undefined
    const context = (request ?? attempt)?.context ?? attemptContext(id, traceparent)
    return { execution: { ...execution, traceparent: context && formatTraceparent(context) }, attempt, request }
  }

  return {
    ledger: (ledger) => ({
      ...ledger,
      async claim(claim) {
        const answers = await ledger.claim(claim)
        countClaims(
          claim.queue,
          answers.flatMap((answer) => (answer.kind === 'claimed' ? [answer.task] : [])),
        )
        return answers
      },
      async settle(node, settlements) {
        const settled = await ledger.settle(node, settlements)
        countEnds(settlements, settled)
        tell(settlements)
        return settled
      },
    }),

    executor: (executor) => ({
      ...executor,
      async run(given) {
        const { execution, attempt, request } = traced(given)
        const startedAt = clock.now()
        const outcome = await executor.run(execution)
        metrics.ran(execution.queue, clock.now() - startedAt)
        if (attempt) endSpans(outcome, attempt, request)
        return outcome
      },
    }),

    claims: (claim) => async (request) => {
      const tasks = await claim(request)
      countClaims(request.queue, tasks)
      return tasks
    },

    submitted(ids) {
      if (ids.length === 0) return
      metrics.batch('submit', ids.length)
      deps.touched(ids)
    },
  }
}

function endSpans(outcome: Outcome, attempt: Span, request: Span | undefined): void {
  const failed = outcome.kind === 'failed' || outcome.kind === 'lost'
  const error = failed ? outcome.error : undefined
  const response = 'response' in outcome ? outcome.response : undefined
  request?.end(response ? { 'http.response.status_code': response.status } : {}, error)
  attempt.end({ 'longshore.outcome': outcome.kind }, error)
}
