import { posix } from 'node:path'
import { type RefusedEntry, RemoteFailure, type RemoteFile, type RemoteFiles } from '../../files/remote-files.ts'
import type { CompleteSource } from '../../task/source/defaults.ts'

/** What a listing of a source comes to, entry by entry. */
export type SourceEntry =
  /** A file to be taken. */
  | { kind: 'file'; file: RemoteFile }
  /** Says that the file of this path is complete. */
  | { kind: 'marker'; path: string; marker: RemoteFile }
  | { kind: 'refused'; entry: RefusedEntry }
  /** A directory below that we may not list: what lies there is not known. */
  | { kind: 'unlisted'; path: string; reason: string }
  /** Neither: a directory, a link, a name that was not asked for. */
  | { kind: 'other' }

/** Directories may lie so deep: a server that shows a directory in itself is not followed for ever. */
const MAX_DEPTH = 64

/**
 * Lists what a source asks for, directory by directory; those where imported files are moved to are left out, as are those that
 * `exclude` names. One below that the server refuses is told as such; otherwise fails rather than leave something out.
 */
export async function* listSource(
  remote: RemoteFiles,
  plan: CompleteSource,
  signal?: AbortSignal,
): AsyncGenerator<SourceEntry, void, undefined> {
  const select = selector(plan)
  const waiting = [{ path: plan.directory, depth: 1 }]
  let left = plan.limits.entries
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    try {
      for await (const entry of remote.list(next.path, { limit: left, ...(signal && { signal }) })) {
        left--
        if (entry.kind === 'directory' && plan.recursive && select.enters(entry.path)) {
          if (next.depth >= MAX_DEPTH) throw tooDeep(entry.path)
          waiting.push({ path: entry.path, depth: next.depth + 1 })
        }
        yield select.entry(entry)
      }
    } catch (error) {
      if (next.depth === 1 || !isRefusal(error)) throw error
      yield { kind: 'unlisted', path: next.path, reason: error.message }
    }
  }
}

/** The server says no to this directory, and goes on to answer. */
function isRefusal(error: unknown): error is RemoteFailure {
  if (!(error instanceof RemoteFailure)) return false
  const { layer, reason } = error
  return ['directory', 'list'].includes(layer) && ['denied', 'refused', 'not-found'].includes(reason)
}

function tooDeep(path: string): RemoteFailure {
  const message = `Cannot list "${path}": directories lie more than ${MAX_DEPTH} deep (does one show itself?)`
  return new RemoteFailure('list', 'limit', message)
}

/** What a source's settings say about names. */
function selector({ directory, include, exclude, ready, after, failed }: CompleteSource) {
  const base = tidy(directory)
  const below = base === '' || base === '/' ? base : `${base}/`
  const included = matcher(include)
  const excluded = matcher(exclude)
  const folders = [after, failed].flatMap((action) =>
    action.kind === 'move' ? [folderPath(directory, action.to)] : [],
  )
  const suffix = ready.kind === 'marker' ? ready.suffix : undefined
  const relative = (path: string) => (path.startsWith(below) ? path.slice(below.length) : path)

  return {
    enters: (path: string) => !excluded(relative(path)) && !folders.some((folder) => isSamePlace(path, folder)),
    entry(entry: RemoteFile | RefusedEntry): SourceEntry {
      if (entry.kind === 'refused') return { kind: 'refused', entry }
      if (entry.kind !== 'file') return { kind: 'other' }
      const name = relative(entry.path)
      if (suffix !== undefined && name.endsWith(suffix)) {
        return { kind: 'marker', path: entry.path.slice(0, -suffix.length), marker: entry }
      }
      return included(name) && !excluded(name) ? { kind: 'file', file: entry } : { kind: 'other' }
    },
  }
}

/** A pattern without a slash is about the name, any other about the whole path below the directory. */
function matcher(patterns: string[]): (relative: string) => boolean {
  const tests = patterns.map((pattern) => {
    // Not every runtime lets the stars match names that begin with a dot.
    if (pattern === '**' || pattern === '*') return () => true
    if (pattern.includes('/')) return (relative: string) => posix.matchesGlob(relative, pattern)
    return (relative: string) => posix.matchesGlob(relative.slice(relative.lastIndexOf('/') + 1), pattern)
  })
  return (relative) => tests.some((test) => test(relative))
}

/** Where a folder lies that is absolute or below the polled directory. */
export function folderPath(directory: string, folder: string): string {
  return folder.startsWith('/') ? tidy(folder) : tidy(`${directory}/${folder}`, directory.startsWith('/'))
}

/** Without empty parts and a slash at the end. */
function tidy(path: string, absolute = path.startsWith('/')): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  return `${absolute ? '/' : ''}${parts.join('/')}`
}

/** Where the login leads is often the server's root: then `done` and `/done` are one. */
function isSamePlace(path: string, folder: string): boolean {
  return path === folder || (!path.startsWith('/') && `/${path}` === folder)
}
