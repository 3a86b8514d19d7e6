/** What a queue's window goes by. */
export interface WindowFacts {
  /** The queue's own setting. */
  given: number | null
  /** Targets that its consumers run at once, on all living nodes. */
  slots: number
  /** Tasks per second that they end, lately. */
  rate: number
}

const AT_LEAST = 100
/**
 * What a high rate is worth at most. Beyond it each claim counts longer what is out, and a classic queue writes its messages
 * to disk before they are taken (docs/decisions/0012-windows-and-prefetch.md).
 */
const AT_MOST_BY_RATE = 1_000
/** Foreign consumers tell neither slots nor a rate. */
const WITHOUT_CONSUMERS = 1_000

/** How many tasks of a queue the broker may hold at once (DESIGN section 3). */
export function windowOf({ given, slots, rate }: WindowFacts): number {
  if (given !== null) return given
  if (slots === 0) return WITHOUT_CONSUMERS
  return Math.max(AT_LEAST, 4 * slots, Math.min(AT_MOST_BY_RATE, Math.ceil(2 * rate)))
}
