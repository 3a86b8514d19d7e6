/** Bounds that every door keeps. Sizes in bytes, times in milliseconds. */
export const LIMITS = {
  payloadBytes: 1024 * 1024,
  batchBytes: 32 * 1024 * 1024,
  batchTasks: 10_000,
  jsonDepth: 64,
  resultBytes: 64 * 1024,
  errorBytes: 4 * 1024,
  responseBytes: 4 * 1024,
  attemptsKept: 20,
  logLines: 100,
  logLineBytes: 1024,
  idempotencyKeyLength: 255,
  typeLength: 128,
  maxAttempts: 1_000,
  dueAheadMs: 10 * 365 * 24 * 3_600_000,
  /** Lost starts in a row after which a task is dead. */
  lostStarts: 5,
  /** Lost starts after which a task runs alone in its thread. */
  lostStartsBeforeAlone: 2,
  minTimeoutMs: 1,
  maxTimeoutMs: 7 * 24 * 3_600_000,
  retryAfterMs: 24 * 3_600_000,
  /**
   * What is claimed is started within this time of its claim, or not at all: a row that its node does not name for longer is
   * given back (PROTOCOL 3), and may run elsewhere.
   */
  startKnownWithinMs: 4_000,
} as const

/** Priorities run from 0 to 9, higher first. */
export const PRIORITIES = 10

/** Text that Postgres takes: no NUL, no lone surrogates, at most `bytes`. */
export function legible(text: string, bytes: number): string {
  return truncate(text.replaceAll('\0', '\uFFFD').toWellFormed(), bytes)
}

/** Cuts `text` to at most `bytes` of UTF-8, at a character's edge, and says so at its end. */
export function truncate(text: string, bytes: number): string {
  if (text.length * 3 <= bytes) return text
  const encoded = Buffer.from(text, 'utf8')
  if (encoded.length <= bytes) return text
  const mark = ' [cut]'
  let end = bytes - mark.length
  while (end > 0 && ((encoded[end] ?? 0) & 0xc0) === 0x80) end--
  return encoded.subarray(0, end).toString('utf8') + mark
}
