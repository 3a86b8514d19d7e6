import type { Static } from '@sinclair/typebox'
import { formatDuration } from '../runtime/duration.ts'
import type { ReadFile } from '../store/files/list.ts'
import type { FileSchema } from './routes/sources/files-schema.ts'

/** A file as the API tells it. */
export function fileJson(file: ReadFile): Static<typeof FileSchema> {
  const { id, sourceId, source, path, generation, status, size, modified, sha256, paused, taskId } = file
  const { duplicateOf, failures, error, seenAt, fetchedAt, importedAt, finishedAt } = file
  const { total, succeeded, dead } = file.tasks
  return {
    ...{ id, sourceId, source, path, generation, status, size, modified, sha256, paused, taskId },
    progress: progressOf(file),
    tasks: { total, succeeded, dead, live: Math.max(0, total - succeeded - dead) },
    after: file.after && { state: file.after, error: file.afterError, location: file.location },
    ...{ duplicateOf, failures, error, seenAt, fetchedAt, importedAt, finishedAt },
  }
}

function progressOf(file: ReadFile) {
  const { status, paused, size, bytesRead, recordsRead, recordsRejected, attemptMs, attemptBytes, attemptRecords } =
    file
  const perSecond = (count: number | null) =>
    paused || attemptMs === null || count === null ? null : Math.round(count / Math.max(attemptMs / 1000, 0.001))
  const bytesPerSecond = perSecond(attemptBytes)
  const left = status === 'importing' && size !== null && bytesPerSecond ? size - bytesRead : null
  return {
    ...{ bytesRead, recordsRead, recordsRejected },
    bytesPerSecond,
    recordsPerSecond: perSecond(attemptRecords),
    remaining: left === null || !bytesPerSecond ? null : formatDuration(remainingMs(left, bytesPerSecond)),
  }
}

/** To the second, unless it is less than ten. */
function remainingMs(left: number, bytesPerSecond: number): number {
  const ms = Math.max(0, Math.round((left / bytesPerSecond) * 1000))
  return ms < 10_000 ? ms : Math.round(ms / 1000) * 1000
}
