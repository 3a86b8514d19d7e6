/** What a check came to: `warning` works today, `fault` does not. */
export interface Finding {
  check: string
  level: 'ok' | 'warning' | 'fault'
  what: string
  /** What to do about it; every finding that is not ok has one. */
  remedy?: string
}

export const ok = (check: string, what: string): Finding => ({ check, level: 'ok', what })
export const warning = (check: string, what: string, remedy: string): Finding => ({
  check,
  level: 'warning',
  what,
  remedy,
})
export const fault = (check: string, what: string, remedy: string): Finding => ({ check, level: 'fault', what, remedy })
