import type { Logger } from '../runtime/log.ts'
import type { Execution, Executor } from '../task/executor.ts'
import type { ClaimAnswer, DeliveryClaim } from '../task/ledger.ts'
import type { Outcome } from '../task/outcome.ts'

/**
 * Logs the end of each attempt at what came from an older system, or goes where one of its consumers delivers: their
 * users follow single messages in the log. Ids and reasons only; of other tasks the metrics tell, as they are too many.
 */
export function loggedDeliveries(executor: Executor, log: Logger): Executor {
  return {
    ...executor,
    async run(execution) {
      const outcome = await executor.run(execution)
      if (execution.origin === 'compat' || consumerOf(execution) !== undefined) tell(log, execution, outcome)
      return outcome
    },
  }
}

/** Consumers that were made by POST /createConsumer name themselves in what they send. */
function consumerOf({ target }: Execution): string | undefined {
  return target.type === 'http' ? target.fields?.consumerId : undefined
}

function tell(log: Logger, execution: Execution, outcome: Outcome): void {
  const { id: task, queue, attempt } = execution
  const about = { task, queue, attempt, consumer: consumerOf(execution) }
  switch (outcome.kind) {
    case 'succeeded':
      log.info({ event: 'message-delivered', ...about }, 'A message was delivered')
      return
    case 'failed':
      log.warn(
        { event: 'message-failed', ...about, retryable: outcome.retryable, error: outcome.error },
        'A message was not delivered',
      )
      return
    case 'lost':
      log.warn({ event: 'message-failed', ...about, retryable: true, error: outcome.error }, 'A delivery was lost')
      return
    case 'cancelled':
    case 'returned':
    case 'snoozed':
      return
    default:
      outcome satisfies never
  }
}

/** Logs messages that are dead letters from the first, as nobody can read them: of whatever queue, as no attempt tells of them. */
export function tellUnreadable(
  log: Logger,
  queue: string,
  deliveries: readonly DeliveryClaim[],
  answers: readonly ClaimAnswer[],
): void {
  for (const [index, delivery] of deliveries.entries()) {
    if (delivery.kind !== 'unreadable' || answers[index]?.kind !== 'dead') continue
    const { id: task, reason: error } = delivery
    log.warn({ event: 'message-failed', task, queue, retryable: false, error }, 'A message cannot be worked on')
  }
}
