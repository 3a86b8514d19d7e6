import { messageOf } from '../../../runtime/errors.ts'
import { formatTraceparent, parseTraceparent } from '../../../runtime/telemetry/traceparent.ts'
import { noTracing, type Tracing } from '../../../runtime/telemetry/tracing.ts'
import type { NewTask } from '../../../task/task.ts'

/** Stores tasks under the trace that the caller is in: its `traceparent` header; one that is malformed counts as none. */
export async function tracedSubmission<T>(
  tracing: Tracing = noTracing,
  request: Request,
  tasks: NewTask[],
  submit: () => Promise<T>,
): Promise<T> {
  const caller = parseTraceparent(request.headers.get('traceparent'))
  const span = tracing.start('submit', 'server', caller, { 'longshore.tasks': tasks.length })
  const context = span?.context ?? caller
  if (context) {
    const traceparent = formatTraceparent(context)
    for (const task of tasks) task.traceparent = traceparent
  }
  try {
    const submitted = await submit()
    span?.end()
    return submitted
  } catch (error) {
    span?.end({}, messageOf(error))
    throw error
  }
}
