import { type FSWatcher, watch } from 'node:fs'
import { readdir, stat } from 'node:fs/promises'
import { extname, join } from 'node:path'
import type { Clock } from '../../runtime/clock.ts'
import { messageOf } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'

/** Endings of files that can be code; a name without one may be a folder or a link. */
const CODE = new Set(['', '.ts', '.mts', '.js', '.mjs', '.cjs', '.json'])
const MAX_FOLDERS = 100

export interface FolderWatchSettings {
  folder: string
  clock: Clock
  log: Logger
  /** Code in the folder has changed; called at most once per `settleMs`. */
  onChange(): void
  /** How long changes are gathered; by default 100. */
  settleMs?: number
  /** How often it is checked whether the folder is still the same one; by default 2000. */
  recheckMs?: number
}

/** Watches a folder of handlers and its subfolders (but `node_modules` and hidden ones); the folder may come, go and be replaced. */
export function watchFolder(settings: FolderWatchSettings): () => void {
  const { folder, clock, log, onChange, settleMs = 100, recheckMs = 2_000 } = settings
  const watchers = new Map<string, FSWatcher>()
  /** Device and inode of the folder that is watched; null while it is missing, undefined before the first look. */
  let watched: string | null | undefined
  let settling = false
  let failing = false
  let stopped = false
  let stopTimer = () => {}
  let stopSettling = () => {}

  function changed(): void {
    if (settling || stopped) return
    settling = true
    stopSettling = clock.after(settleMs, () => {
      settling = false
      onChange()
      lookIn(0)
    })
  }

  function lookIn(delayMs: number): void {
    stopTimer()
    if (!stopped) stopTimer = clock.after(delayMs, () => void look())
  }

  async function look(): Promise<void> {
    try {
      const identity = await identityOf(folder)
      const folders = identity === null ? [] : await foldersIn(folder)
      if (stopped) return
      follow(identity, folders)
      failing = false
    } catch (error) {
      if (!failing) {
        log.warn(
          { event: 'handlers-unwatched', folder },
          `Cannot watch the handlers' folder, trying again: ${messageOf(error)}`,
        )
      }
      failing = true
      unwatch()
      watched = null
    }
    lookIn(recheckMs)
  }

  /** Watches these folders and no others. What is watched from now on may have changed just before. */
  function follow(identity: string | null, folders: string[]): void {
    const isFirst = watched === undefined
    if (identity !== watched) unwatch()
    let isNew = identity !== watched
    watched = identity
    for (const [path, watcher] of watchers) {
      if (folders.includes(path)) continue
      watcher.close()
      watchers.delete(path)
    }
    for (const path of folders) {
      if (watchers.has(path)) continue
      watchers.set(path, watchOne(path))
      isNew = true
    }
    if (isNew && !isFirst) changed()
  }

  function watchOne(path: string): FSWatcher {
    const watcher = watch(path, { persistent: false }, (_event, name) => {
      if (name === null || name.startsWith('..') || CODE.has(extname(name))) changed()
    })
    watcher.on('error', () => {
      watcher.close()
      watchers.delete(path)
    })
    return watcher
  }

  function unwatch(): void {
    for (const watcher of watchers.values()) watcher.close()
    watchers.clear()
  }

  void look()
  return () => {
    stopped = true
    stopTimer()
    stopSettling()
    unwatch()
  }
}

async function identityOf(folder: string): Promise<string | null> {
  try {
    const { dev, ino } = await stat(folder)
    return `${dev}:${ino}`
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return null
    throw error
  }
}

/** The folder and what lies in it, breadth first. */
async function foldersIn(folder: string): Promise<string[]> {
  const found = [folder]
  for (const path of found) {
    for (const entry of await readdir(path, { withFileTypes: true })) {
      if (found.length >= MAX_FOLDERS) return found
      if (entry.isDirectory() && entry.name !== 'node_modules' && !entry.name.startsWith('.'))
        found.push(join(path, entry.name))
    }
  }
  return found
}
