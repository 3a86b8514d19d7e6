import type { AnyElysia } from 'elysia'
import type { Access } from '../access.ts'
import { type ActionDeps, taskActionRoutes } from './tasks-actions.ts'
import { taskBulkRoutes } from './tasks-bulk.ts'
import { taskReadRoutes } from './tasks-read.ts'
import { type SubmitDeps, taskSubmitRoutes } from './tasks-submit.ts'

export type TaskDeps = SubmitDeps & ActionDeps

/** Everything under /tasks. */
export function taskRoutes(access: Access, deps: TaskDeps): AnyElysia[] {
  return [
    taskSubmitRoutes(access, deps),
    taskReadRoutes(access, deps),
    taskBulkRoutes(access, deps),
    taskActionRoutes(access, deps),
  ]
}
