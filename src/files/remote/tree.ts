import { type ListOptions, MAX_ENTRIES, type RemoteEntry } from '../remote-files.ts'
import type { Failures } from './failures.ts'
import { shown, tidyPath } from './names.ts'

/** Directories may lie so deep: a server that shows a directory in itself is not followed for ever. */
const MAX_DEPTH = 64

/** The entries of one directory, path by path. */
export type ListOne = (directory: string) => AsyncIterable<RemoteEntry>

/** Lists a directory, with those below it when that is asked for, one after another; keeps the limits. */
export async function* listTree(
  directory: string,
  { recursive = false, limit = MAX_ENTRIES, signal }: ListOptions,
  { fail }: Failures,
  listOne: ListOne,
): AsyncGenerator<RemoteEntry, void, undefined> {
  const top = tidyPath(directory)
  const doing = `list "${shown(top)}"`
  const waiting: { path: string; depth: number }[] = [{ path: top, depth: 1 }]
  let count = 0
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    signal?.throwIfAborted()
    for await (const entry of listOne(next.path)) {
      signal?.throwIfAborted()
      count++
      if (count > limit) {
        throw fail(
          'list',
          'limit',
          doing,
          `there are more than ${limit} entries: name a smaller directory, or raise the limit`,
        )
      }
      yield entry
      if (!recursive || entry.kind !== 'directory') continue
      if (next.depth >= MAX_DEPTH) throw fail('list', 'limit', doing, `directories lie more than ${MAX_DEPTH} deep`)
      waiting.push({ path: entry.path, depth: next.depth + 1 })
    }
  }
}
