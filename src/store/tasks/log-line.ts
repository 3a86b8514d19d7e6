import { LIMITS } from '../../task/limits.ts'

/** SQL for `logs` of `t` with one more line, whose text `line` is; the last lines are kept. */
export function appendedLine(line: string): string {
  return `(case when jsonb_array_length(coalesce(t.logs, '[]')) >= ${LIMITS.logLines} then t.logs - 0
      else coalesce(t.logs, '[]') end || to_jsonb(${line}))`
}
