/**
 * The numbers of a node's publishes (PROTOCOL 11). A queued row holds the number that it was published under, and the
 * node's beats tell up to which one all are confirmed: so others know what a node that is gone may not have sent.
 */
export interface PublishNumbers {
  /** A new number, higher than all before. */
  begin(): number
  /** All that was published under it is confirmed, or is no longer queued under it. */
  end(no: number): void
  /** Every publish up to this one has ended. */
  confirmed(): number
}

export function createPublishNumbers(): PublishNumbers {
  const open = new Set<number>()
  let last = 0
  return {
    begin() {
      last += 1
      open.add(last)
      return last
    },
    end: (no) => void open.delete(no),
    confirmed: () => Math.min(last, ...[...open].map((no) => no - 1)),
  }
}
