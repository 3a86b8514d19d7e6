import { posix } from 'node:path'
import { RemoteFailure, type RemoteFile, type RemoteFiles } from '../../files/remote-files.ts'
import type { FinishedFile } from '../../store/files/after.ts'
import type { CompleteSource } from '../../task/source/defaults.ts'
import { exactTime, isSameInstant } from './judge-listing.ts'
import { folderPath } from './listing.ts'

export type AfterEnd = { kind: 'done'; location: string | null } | { kind: 'moot'; why: string }

/**
 * Moves or deletes a remote file whose import has ended, as its source wants; done twice it finds that it is done. Another
 * version that lies there by now is left alone. Rejects with RemoteFailure.
 */
export async function doAfter(remote: RemoteFiles, plan: CompleteSource, file: FinishedFile): Promise<AfterEnd> {
  const action = file.status === 'failed' ? plan.failed : plan.after
  switch (action.kind) {
    case 'none':
      return { kind: 'moot', why: 'Its source does not want it moved or deleted any more' }
    case 'delete':
      return remove(remote, plan, file)
    case 'move':
      return move(remote, plan, file, folderPath(plan.directory, action.to))
    default:
      return action satisfies never
  }
}

async function remove(remote: RemoteFiles, plan: CompleteSource, file: FinishedFile): Promise<AfterEnd> {
  const path = file.location ?? file.path
  const there = await remote.stat(path)
  if (there && !isVersion(there, file)) return OTHER
  if (there) await remote.remove(path)
  await forMarker(plan, path, (marker) => remote.remove(marker))
  return { kind: 'done', location: null }
}

const OTHER: AfterEnd = { kind: 'moot', why: 'Another version lies in its place by now' }

async function move(remote: RemoteFiles, plan: CompleteSource, file: FinishedFile, folder: string): Promise<AfterEnd> {
  const from = file.location ?? file.path
  const there = await remote.stat(from)
  if (there && !isVersion(there, file)) return OTHER
  const names = targetNames(file)
  if (!there) {
    // A node may have ended just after it moved the file.
    const moved = await firstWith(names, async (name) => {
      const found = await remote.stat(posix.join(folder, name))
      return found !== undefined && isVersion(found, file)
    })
    if (moved === undefined) return { kind: 'moot', why: 'It is not there any more' }
    return { kind: 'done', location: posix.join(folder, moved) }
  }
  await remote.makeDirectory(folder)
  const free = await firstWith(names, async (name) => (await remote.stat(posix.join(folder, name))) === undefined)
  if (free === undefined) throw exists(from, folder)
  const to = posix.join(folder, free)
  await remote.move(from, to)
  await forMarker(plan, from, (marker) => remote.move(marker, to + marker.slice(from.length)))
  return { kind: 'done', location: to }
}

function exists(from: string, folder: string): RemoteFailure {
  return new RemoteFailure(
    'write',
    'exists',
    `Cannot move "${from}" to "${folder}": files of its names are there already`,
  )
}

/** Its own name, or, where a file of an earlier day has it, one that no other version has: an id's last 12 digits are random. */
function targetNames({ id, path }: FinishedFile): string[] {
  const { name, ext } = posix.parse(path)
  return [`${name}${ext}`, `${name}-${id.slice(-12)}${ext}`]
}

async function firstWith(names: string[], is: (name: string) => Promise<boolean>): Promise<string | undefined> {
  for (const name of names) if (await is(name)) return name
  return undefined
}

function isVersion(there: RemoteFile, file: FinishedFile): boolean {
  const { size } = file
  if (there.kind !== 'file' || (size !== null && there.size !== null && there.size !== size)) return false
  const time = exactTime(file)
  return time === null || there.modifiedAt === null || isSameInstant(there.modifiedAt, time)
}

/** A marker that stays would say of the next version that it is complete. One that cannot be helped does no harm: see `markComplete`. */
async function forMarker(
  { ready }: CompleteSource,
  path: string,
  act: (marker: string) => Promise<void>,
): Promise<void> {
  if (ready.kind !== 'marker') return
  try {
    await act(`${path}${ready.suffix}`)
  } catch (error) {
    if (!(error instanceof RemoteFailure) || !['not-found', 'exists', 'denied', 'refused'].includes(error.reason))
      throw error
  }
}
