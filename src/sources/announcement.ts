import { v7 as uuidv7 } from 'uuid'
import type { StoredSource } from '../store/sources/read.ts'
import type { CompleteSource } from '../task/source/defaults.ts'
import type { NewTask } from '../task/task.ts'
import { exchangeTask } from './exchange-task.ts'

/**
 * The message that a poll of a source in mode announce publishes, for others who fetch the files themselves: where they are, and
 * nothing of how to log in.
 */
export function announcementOf({ id }: StoredSource, plan: CompleteSource): NewTask {
  const { host, port, directory, format } = plan
  if (format.type === 'by-extension') throw new Error('A source that announces has one content type')
  const message = { sourceId: id, host, port, directory, contentType: format.type, runId: uuidv7() }
  return exchangeTask('longshore.announcement', message, plan, format.type)
}
