import type { Database } from '../store/database/database.ts'
import { type Rerun, rerunFile, setFilePaused, skipFile } from '../store/files/actions.ts'
import { askForPoll } from '../store/sources/due.ts'
import { runNow } from '../store/tasks/run-now.ts'
import type { FileStatus } from '../task/source/source.ts'

/** What somebody does with a file. */
export interface Files {
  /** Undefined when there is no such file. A paused import stops behind the batch in hand; a resumed one goes on there. */
  setPaused(id: string, paused: boolean): Promise<FileStatus | undefined>
  /** Undefined when there is no such file. What is imported of it already stays. */
  cancel(id: string): Promise<FileStatus | undefined>
  /**
   * Fetches and imports it once more, from the beginning: its records come twice. Those of its records that failed alone are
   * sent again by a replay of its import's task.
   */
  rerun(id: string): Promise<Rerun>
}

export interface FilesDeps {
  pool: Database['pool']
  /** Cancels tasks, wherever they are. */
  cancelTasks(ids: string[]): Promise<unknown>
  /** Queues have work. */
  wake(queues: string[]): void
  /** Pollers look at once. */
  onChanged(): void
}

export function createFiles({ pool, cancelTasks, wake, onChanged }: FilesDeps): Files {
  return {
    async setPaused(id, paused) {
      const file = await setFilePaused(pool, id, paused)
      if (file && !paused) {
        if (file.task !== null) wake((await runNow(pool, [file.task])).queues)
        else await askForPoll(pool, file.source)
        onChanged()
      }
      return file?.status
    },
    async cancel(id) {
      const file = await skipFile(pool, id)
      if (file?.task && file.status === 'importing') await cancelTasks([file.task])
      return file?.status
    },
    async rerun(id) {
      const rerun = await rerunFile(pool, id)
      if (rerun.kind === 'again') onChanged()
      return rerun
    },
  }
}
