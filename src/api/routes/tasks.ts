import type { AnyElysia } from 'elysia'
import type { Access } from '../access.ts'
import { exchangeMessageRoutes } from './exchanges/messages.ts'
import { queueSubmitRoutes } from './queues/submit.ts'
import { type ActionDeps, taskActionRoutes } from './tasks/actions.ts'
import { taskBulkRoutes } from './tasks/bulk.ts'
import { taskReadRoutes } from './tasks/read.ts'
import { type ReplayDeps, taskReplayRoutes } from './tasks/replay.ts'
import { type SubmitDeps, taskSubmitRoutes } from './tasks/submit.ts'

export type TaskDeps = SubmitDeps & ActionDeps & ReplayDeps

/** Everything under /tasks, and what else submits one. */
export function taskRoutes(access: Access, deps: TaskDeps): AnyElysia[] {
  return [
    taskSubmitRoutes(access, deps),
    queueSubmitRoutes(access, deps),
    exchangeMessageRoutes(access, deps),
    taskReadRoutes(access, deps),
    taskBulkRoutes(access, deps),
    taskActionRoutes(access, deps),
    taskReplayRoutes(access, deps),
  ]
}
