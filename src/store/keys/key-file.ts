import { randomBytes } from 'node:crypto'
import { link, mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'

/** What the file holds, without the space around it; undefined when there is no such file. */
export async function readKeyFile(file: string): Promise<string | undefined> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

/**
 * What the file holds. When it is not there it is made with what `make` gives: whole, durable and with mode 0600 before the
 * key is used, for what is encrypted with a key must never outlive it.
 */
export async function keptKey(file: string, make: () => string): Promise<string> {
  const before = await readKeyFile(file)
  if (before !== undefined) return before
  await mkdir(dirname(file), { recursive: true })
  const draft = `${file}.${randomBytes(4).toString('hex')}`
  try {
    await writeFile(draft, `${make()}\n`, { mode: 0o600, flag: 'wx', flush: true })
    // Unlike a rename, a link never replaces: a process that was faster keeps its key.
    await link(draft, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    await rm(draft, { force: true })
  }
  const kept = await readKeyFile(file)
  if (kept === undefined) throw new Error(`The key in ${file} is gone again`)
  return kept
}
