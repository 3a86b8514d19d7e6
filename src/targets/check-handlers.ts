import { readdirSync } from 'node:fs'
import { pathToFileURL } from 'node:url'
import type { HandlerFile, HandlerFinding } from '../task/attempt/thread-messages.ts'
import { describeThrown } from './handler.ts'
import { findHandler, HANDLER_ENDINGS, handlerNameOf } from './handlers-dir.ts'

/** What lies in the handlers' folder: the handlers, and files that look like one and are none. Throws when it cannot be read. */
export function listHandlerFiles(dir: string): HandlerFile[] {
  const files: HandlerFile[] = []
  const taken = new Map<string, string>()
  for (const file of readdirSync(dir).sort(byEnding)) {
    const name = handlerNameOf(file)
    if (name === undefined) continue
    const first = taken.get(name)
    if (first !== undefined) {
      files.push({ file, problem: `it is hidden by ${first}, which has the same name: rename or remove one` })
    } else if (findHandler(dir, name) === undefined) {
      const rule = 'a name has letters, digits and . _ - , and a link stays in the folder'
      files.push({ file, problem: `it cannot be a handler: ${rule}` })
    } else {
      taken.set(name, file)
      files.push({ file, name })
    }
  }
  return files
}

/** Loads a handler as a task would; without a problem when it can be called. */
export async function checkHandler(dir: string, name: string): Promise<HandlerFinding> {
  const file = findHandler(dir, name)
  if (file === undefined) return { problem: 'it is gone' }
  try {
    const { default: handler } = (await import(pathToFileURL(file).href)) as { default?: unknown }
    if (typeof handler === 'function') return {}
    return {
      problem:
        'it has no function as its default export: export default async (payload, { task, signal, log, progress }) => { ... }',
    }
  } catch (error) {
    return { problem: describeThrown(error, file) }
  }
}

/** In the order in which endings count. */
function byEnding(a: string, b: string): number {
  const rank = (file: string) => HANDLER_ENDINGS.findIndex((end) => file.endsWith(end))
  return rank(a) - rank(b) || (a < b ? -1 : 1)
}
