import { LIMITS } from '../../task/limits.ts'

/** SQL for the parts of an attempt's record; `t` is the task's row as it was. */
export interface AttemptSql {
  number: string
  /** Who had it. */
  node: string
  outcome: string
  error: string
  /** JSON text; none by default. */
  response?: string
}

/** SQL for `attempts` with one more record; the last ones are kept. */
export function appendedAttempt({ number, node, outcome, error, response = 'null' }: AttemptSql): string {
  return `case when jsonb_array_length(t.attempts) >= ${LIMITS.attemptsKept} then t.attempts - 0 else t.attempts end
      || jsonb_build_object('number', ${number}, 'node', ${node}, 'startedAt', t.started_at, 'finishedAt', now(),
        'outcome', ${outcome}, 'error', ${error}, 'response', ${response}::jsonb)`
}
