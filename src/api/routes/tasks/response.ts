import { Type } from '@sinclair/typebox'
import { Problem } from '../../../runtime/errors.ts'
import type { Database } from '../../../store/database/database.ts'
import { placesOf, readSituation, readTask } from '../../../store/tasks/read/read.ts'
import { uuidIn } from '../../page.ts'
import { jsonResponse } from '../../response.ts'
import { taskJson } from '../../task-json.ts'

/** The id of a path; a Problem `not-found` when it can be none. */
export function taskId(given: string): string {
  const id = uuidIn(given)
  if (id === undefined) throw unknownTask(given)
  return id
}

/** The task as it stands now, as a response; a Problem `not-found` when it is gone. */
export async function taskResponse(
  pool: Database['pool'],
  id: string,
  status = 200,
  headers?: Record<string, string>,
): Promise<Response> {
  const row = await readTask(pool, id)
  if (!row) throw unknownTask(id)
  return jsonResponse(taskJson(row, await readSituation(pool, placesOf([row]))), status, headers)
}

export function unknownTask(id: string): Problem {
  return new Problem('not-found', `There is no task "${id.slice(0, 100)}"`)
}

/** The path parameter of a task. */
export const TASK_ID = { id: Type.String({ format: 'uuid', description: "The task's id" }) }
