const MIN_TTL_MS = 1_000
const MAX_TTL_MS = 5_000

/**
 * `read`, asked at most once at a time and kept for ten times as long as it took, between one and five seconds (or as given);
 * a failure is not kept.
 */
export function cached<T>(read: () => Promise<T>, { minMs = MIN_TTL_MS, maxMs = MAX_TTL_MS } = {}): () => Promise<T> {
  let kept: Promise<T> | undefined
  let until = Number.POSITIVE_INFINITY
  return () => {
    if (kept && performance.now() < until) return kept
    const startedAt = performance.now()
    until = Number.POSITIVE_INFINITY
    const mine = read()
    kept = mine
    mine.then(
      () => {
        const endedAt = performance.now()
        until = endedAt + Math.min(Math.max((endedAt - startedAt) * 10, minMs), maxMs)
      },
      () => {
        if (kept === mine) kept = undefined
      },
    )
    return mine
  }
}
