import type { TaskDeps } from '../../api/routes/tasks.ts'
import type { Database } from '../../store/database/database.ts'
import { cancelTasks } from '../../store/tasks/cancel.ts'
import { mendTask } from '../../store/tasks/dead-letters/mend.ts'
import { replayTasks } from '../../store/tasks/dead-letters/replay.ts'
import { reportForeign } from '../../store/tasks/foreign-report.ts'
import { removeTasks } from '../../store/tasks/remove.ts'
import { runNow } from '../../store/tasks/run-now.ts'
import type { Node } from '../node.ts'

export type TaskChanges = Pick<
  TaskDeps,
  'cancelTasks' | 'replayTasks' | 'mendTask' | 'runNow' | 'deleteTasks' | 'reportStatus'
>

/** What the API does to tasks that are stored: it is written, told to the event feed, and whoever works on it hears of it. */
export function taskChanges({ pool }: Database, node: Node): TaskChanges {
  const { heart, registry, notifications, wakeAll, touched } = node
  return {
    async cancelTasks(ids) {
      const cancelled = await cancelTasks(pool, ids, touched)
      const running = cancelled.filter((one) => one.outcome === 'requested').map((one) => one.id)
      node.cancel(running)
      if (running.length > 0) notifications.send({ kind: 'cancel', ids: running })
      return cancelled
    },
    async replayTasks(ids, options) {
      const { replayed, queues } = await replayTasks(pool, ids, touched, options)
      wakeAll(queues)
      return replayed
    },
    async mendTask(id, payload, by) {
      const mended = await mendTask(pool, id, payload, by)
      if (mended === 'mended') touched([id])
      return mended
    },
    async runNow(ids) {
      const { due, queues } = await runNow(pool, ids)
      touched(ids)
      wakeAll(queues)
      return due
    },
    deleteTasks: (ids) => removeTasks(pool, heart.node(), ids),
    async reportStatus(id, report, keyId) {
      const reported = await reportForeign(pool, id, report, keyId, (queue) => registry.retryOf(queue))
      touched([id])
      return reported
    },
  }
}
