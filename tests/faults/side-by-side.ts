/** Runs all at once and waits for every one's end, also when another fails: each has processes and folders to clean up. */
export async function sideBySide<I, O>(items: readonly I[], run: (item: I) => Promise<O>): Promise<O[]> {
  const ends = await Promise.allSettled(items.map(run))
  return ends.map((end) => {
    if (end.status === 'rejected') throw end.reason
    return end.value
  })
}
