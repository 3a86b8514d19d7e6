const UNIT_MS = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const
const PATTERN = /^(\d{1,12})(ms|s|m|h|d)$/

/** The JSON Schema pattern of a duration. */
export const DURATION_PATTERN = '^\\d{1,12}(ms|s|m|h|d)$'

/** Reads a duration such as `250ms`, `30s`, `15m`, `2h` or `7d` into milliseconds; undefined when it is none. */
export function parseDuration(text: string): number | undefined {
  const match = PATTERN.exec(text)
  if (!match) return undefined
  return Number(match[1]) * UNIT_MS[match[2] as keyof typeof UNIT_MS]
}

/** Writes milliseconds as a duration in the largest unit that divides them. */
export function formatDuration(ms: number): string {
  for (const unit of ['d', 'h', 'm', 's'] as const) {
    if (ms > 0 && ms % UNIT_MS[unit] === 0) return `${ms / UNIT_MS[unit]}${unit}`
  }
  return `${ms}ms`
}
