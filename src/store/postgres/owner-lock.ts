import { randomBytes } from 'node:crypto'
import { link, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { processIdentity } from './process-identity.ts'
import { EmbeddedPostgresRefusal } from './refusal.ts'

/** One process at a time owns a folder. `release` lets the next one in; so does this process's death. */
export interface OwnerLock {
  release(): Promise<void>
}

type Content = { pid: number; identity: string } | { released: true }

const NAME = /^owner-(\d+)\.lock$/
const DRAFT = /^\.owner-(\d+)-[0-9a-f]+\.tmp$/

/**
 * Takes the lock of `folder`, or throws a refusal that names the living owner.
 *
 * A lock file is `owner-<n>.lock`, the highest n counts, and n only rises: a lock whose owner is gone is never removed
 * and made again (two racers could then remove each other's), but followed by n + 1, which only one of them can create.
 * Owners are told apart by pid and start time, so all processes of a folder must see each other's pids.
 */
export async function takeOwnerLock(folder: string): Promise<OwnerLock> {
  const identity = processIdentity(process.pid)
  if (identity === undefined) {
    throw new EmbeddedPostgresRefusal(
      'failed',
      'Longshore cannot tell processes apart, because /proc cannot be read: mount it, give Deno --allow-all, or set DATABASE_URL.',
    )
  }
  const draft = join(folder, `.owner-${process.pid}-${randomBytes(4).toString('hex')}.tmp`)
  await writeFile(draft, JSON.stringify({ pid: process.pid, identity } satisfies Content), { mode: 0o600, flush: true })
  try {
    for (;;) {
      const last = await highest(folder)
      const owner = last > 0 ? await livingOwner(folder, last) : undefined
      if (owner !== undefined) {
        throw new EmbeddedPostgresRefusal(
          'locked',
          `Another longshore (pid ${owner}) owns ${folder}: stop it first, or give this one a DATA_DIR of its own.`,
        )
      }
      const mine = last + 1
      // A link appears with its whole content or not at all, and fails when the name is taken.
      if (!(await linkOnce(draft, fileOf(folder, mine)))) continue
      // Whoever looked long ago may have linked a number that was used and cleaned up meanwhile.
      if ((await highest(folder)) > mine) {
        await rm(fileOf(folder, mine), { force: true })
        continue
      }
      await removeOlder(folder, mine)
      return { release: () => markReleased(folder, mine) }
    }
  } finally {
    await rm(draft, { force: true })
  }
}

function fileOf(folder: string, n: number): string {
  return join(folder, `owner-${n}.lock`)
}

async function numbers(folder: string): Promise<number[]> {
  const names = await readdir(folder)
  return names.map((name) => Number(NAME.exec(name)?.[1] ?? 0)).filter((n) => n > 0)
}

async function highest(folder: string): Promise<number> {
  return Math.max(0, ...(await numbers(folder)))
}

async function livingOwner(folder: string, n: number): Promise<number | undefined> {
  let content: Content
  try {
    content = JSON.parse(await readFile(fileOf(folder, n), 'utf8')) as Content
  } catch {
    // Torn by a power loss, or removed by a newer owner, whom the next look finds.
    return undefined
  }
  if ('released' in content) return undefined
  return processIdentity(content.pid) === content.identity ? content.pid : undefined
}

async function linkOnce(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to)
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false
    throw error
  }
}

/** Removes locks that `mine` follows, and drafts whose process was killed before it removed them. */
async function removeOlder(folder: string, mine: number): Promise<void> {
  for (const name of await readdir(folder)) {
    const n = NAME.exec(name)?.[1]
    const drafter = DRAFT.exec(name)?.[1]
    const isOlder = n !== undefined && Number(n) < mine
    const isAbandoned = drafter !== undefined && processIdentity(Number(drafter)) === undefined
    if (isOlder || isAbandoned) await rm(join(folder, name), { force: true })
  }
}

/** The file stays, so that its number is not used again. */
async function markReleased(folder: string, mine: number): Promise<void> {
  const draft = join(folder, `.owner-${process.pid}-${randomBytes(4).toString('hex')}.tmp`)
  await writeFile(draft, JSON.stringify({ released: true } satisfies Content), { mode: 0o600 })
  await rename(draft, fileOf(folder, mine))
}
