import { type FieldError, invalid, Problem, type ProblemCode } from '../runtime/errors.ts'
import { checkJsonText, elementSpans } from '../task/json/text.ts'
import { LIMITS } from '../task/limits.ts'
import type { NewTask } from '../task/task.ts'
import { faultProblem, newTask, type Permissions, readSubmission, type SubmissionRules } from './validate.ts'

/** A caller who sends rubbish is told this many mistakes at most. */
const MAX_ERRORS = 20

/** Reads a JSON array of submissions. Throws one Problem that names every wrong field by its place, such as `/3/queue`. */
export function readSubmissions(text: string, rules: SubmissionRules, permissions: Permissions): NewTask[] {
  const checked = checkJsonText(text, { maxDepth: LIMITS.jsonDepth + 2 })
  if (!checked.ok) throw faultProblem(checked)
  const spans = elementSpans(text)
  if (!spans) throw invalid('', 'must be an array of tasks')
  return readAll(spans, ([start, end]) => newTask(text.slice(start, end), rules, permissions))
}

/** Reads one submission a line (NDJSON, https://github.com/ndjson/ndjson-spec); empty lines are passed over. */
export function readSubmissionLines(text: string, rules: SubmissionRules, permissions: Permissions): NewTask[] {
  const lines = text.split('\n').filter((line) => line.trim() !== '')
  return readAll(lines, (line) => readSubmission(line, rules, permissions))
}

function readAll<T>(items: T[], read: (item: T) => NewTask): NewTask[] {
  if (items.length === 0) throw invalid('', 'must hold at least one task')
  if (items.length > LIMITS.batchTasks) {
    throw invalid('', `may hold at most ${LIMITS.batchTasks} tasks, and has ${items.length}`, 'too-large')
  }
  const tasks: NewTask[] = []
  const refusals: Refusal[] = []
  for (const [index, item] of items.entries()) {
    try {
      tasks.push(read(item))
    } catch (error) {
      if (!(error instanceof Problem)) throw error
      refusals.push({ index, code: error.code, detail: error.detail, errors: error.errors })
      if (refusals.length === MAX_ERRORS) break
    }
  }
  if (refusals.length > 0) throw refusedBatch(refusals)
  return tasks
}

/** Why the task at `index` of a batch is refused. */
export interface Refusal {
  index: number
  code: ProblemCode
  detail: string
  /** Paths within the task. */
  errors: readonly FieldError[]
}

/** The problem of a batch of which nothing was stored: its code is that of the refused tasks, or `validation` when they differ. */
export function refusedBatch(refusals: Refusal[]): Problem {
  const codes = new Set(refusals.map(({ code }) => code))
  const errors = refusals.flatMap(({ index, detail, errors: own }) =>
    own.length === 0
      ? [{ path: `/${index}`, message: detail }]
      : own.map(({ path, message }) => ({ path: `/${index}${path}`, message })),
  )
  const [first] = refusals as [Refusal]
  const more = refusals.length > 1 ? ` (and ${refusals.length - 1} more tasks)` : ''
  const code = codes.size === 1 ? first.code : 'validation'
  return new Problem(
    code,
    `Nothing was stored: task ${first.index}: ${first.detail}${more}`,
    errors.slice(0, MAX_ERRORS),
  )
}
