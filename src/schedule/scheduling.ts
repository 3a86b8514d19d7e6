import { createScheduler, type Scheduler, type SchedulerDeps } from './scheduler.ts'
import { createSchedules, type Schedules, type SchedulesDeps } from './schedules.ts'

export type SchedulingDeps = SchedulerDeps & SchedulesDeps

/** Schedules of a node, and the scheduler that hears of their changes at once; it is not started. */
export function createScheduling(deps: SchedulingDeps): { scheduler: Scheduler; schedules: Schedules } {
  const scheduler = createScheduler(deps)
  const onChanged = () => {
    scheduler.wake()
    deps.onChanged()
  }
  return { scheduler, schedules: createSchedules({ ...deps, onChanged }) }
}
