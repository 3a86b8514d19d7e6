import { readdirSync, realpathSync, statSync } from 'node:fs'
import { join, sep } from 'node:path'

/** The endings of a handler's file; the first that exists counts. */
export const HANDLER_ENDINGS = ['.ts', '.js', '.mjs'] as const

const NAME = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/

/** The name that a file in the folder gives to its handler; undefined when it is none by its ending. */
export function handlerNameOf(file: string): string | undefined {
  const ending = HANDLER_ENDINGS.find((end) => file.endsWith(end))
  return ending === undefined || file.endsWith('.d.ts') ? undefined : file.slice(0, -ending.length)
}

/**
 * The real path of handler `name` in `dir`; undefined when there is none. A link counts only while it stays inside `dir`.
 * Throws when the folder exists and cannot be read.
 */
export function findHandler(dir: string, name: string): string | undefined {
  if (!NAME.test(name)) return undefined
  const root = existing(() => realpathSync(dir))
  if (root === undefined) return undefined
  for (const ending of HANDLER_ENDINGS) {
    const file = existing(() => realpathSync(join(root, name + ending)))
    if (file === undefined || !file.startsWith(root.endsWith(sep) ? root : root + sep)) continue
    if (existing(() => statSync(file))?.isFile()) return file
  }
  return undefined
}

/** The names of all handlers in `dir`, sorted; none when it does not exist. Throws when it cannot be read. */
export function listHandlers(dir: string): string[] {
  const names = new Set<string>()
  for (const file of existing(() => readdirSync(dir)) ?? []) {
    const name = handlerNameOf(file)
    if (name !== undefined && findHandler(dir, name) !== undefined) names.add(name)
  }
  return [...names].sort()
}

function existing<T>(look: () => T): T | undefined {
  try {
    return look()
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP') return undefined
    throw error
  }
}
