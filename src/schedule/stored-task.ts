import { newTask, type SubmissionRules } from '../submit/validate.ts'
import { memberSpans } from '../task/json/text.ts'
import type { NewTask } from '../task/task.ts'

/**
 * Reads the submission of a schedule at its fire, through the one door. What was checked of its target when it was stored
 * is not checked again: a handler that is gone since, or an address that is not allowed any more, is its attempts' failure,
 * which is told, retried and kept as a dead letter. Throws Problem.
 */
export function storedTaskReader(check: SubmissionRules['check']): (task: string) => NewTask {
  return (task) => {
    const handlers = handlerNamed(task)
    return newTask(task, { check, handlerNames: () => handlers, checkUrl: () => undefined }, { operate: true })
  }
}

function handlerNamed(task: string): string[] {
  const found = memberSpans(task)
  const span = found?.ok ? found.members.get('target') : undefined
  if (!span) return []
  const target: unknown = JSON.parse(task.slice(...span))
  const name = (target as { name?: unknown } | null)?.name
  return typeof name === 'string' ? [name] : []
}
