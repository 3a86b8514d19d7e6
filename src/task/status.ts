/** The life of a task, in the order in which it usually goes. */
export const STATUSES = ['pending', 'queued', 'running', 'retrying', 'succeeded', 'dead', 'cancelled'] as const
export type Status = (typeof STATUSES)[number]

/** Only replay leaves these, and only `dead` and `cancelled`. */
export const FINAL_STATUSES = ['succeeded', 'dead', 'cancelled'] as const
export type FinalStatus = (typeof FINAL_STATUSES)[number]

export function isFinal(status: Status): status is FinalStatus {
  return (FINAL_STATUSES as readonly Status[]).includes(status)
}

/** Where a task came from. */
export const ORIGINS = ['api', 'schedule', 'file', 'message', 'child', 'compat'] as const
export type Origin = (typeof ORIGINS)[number]
