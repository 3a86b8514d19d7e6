import type { Heart } from '../../execution/heart.ts'
import type { Scheduler } from '../../schedule/scheduler.ts'
import type { Notice } from '../../store/database/notice.ts'
import type { Hands } from '../hands.ts'
import type { Sourcing } from './sourcing.ts'

export interface NoticeDeps {
  heart: Pick<Heart, 'beatSoon'>
  scheduler: Pick<Scheduler, 'wake'>
  sourcing: Pick<Sourcing, 'wake'>
  cancel: Hands['cancel']
  wake(queues: string[]): void
  /** Reads queues, exchanges, bindings and consumers. */
  refresh(): void
}

/** What the working part of a node does about the notice of another one. */
export function hear(notice: Notice, deps: NoticeDeps): void {
  switch (notice.kind) {
    case 'wake':
      deps.wake(notice.queues)
      return
    case 'topology':
      deps.refresh()
      return
    case 'cancel':
      // Too many to be named: the beat asks which.
      if (notice.ids.length === 0) deps.heart.beatSoon()
      else deps.cancel(notice.ids)
      return
    case 'schedules':
      deps.scheduler.wake()
      return
    case 'sources':
      deps.sourcing.wake()
      return
    case 'keys':
    case 'events':
    case 'events-wanted':
      return
    default:
      notice satisfies never
  }
}
