import type { ImportedFile } from '../../store/files/imports.ts'
import { sourceById } from '../../store/sources/read.ts'
import { type ConnectionDeps, connectSource } from '../connection.ts'
import { atMost, type Spool, type Spooled } from '../spool.ts'

/** There is nothing to be fetched any more. */
class Gone extends Error {
  override readonly name = 'Gone'
}

/**
 * Brings a file into this node's spool that was fetched by another one, or whose spool is gone. Whether it is the same still is
 * the caller's to check. Rejects as connections, RemoteFiles and Spool do.
 */
export async function fetchAgain(
  file: Pick<ImportedFile, 'sourceId' | 'path' | 'location' | 'size'>,
  deps: ConnectionDeps & { spool: Spool },
): Promise<Spooled> {
  const source = await sourceById(deps.pool, file.sourceId)
  if (!source) throw new Gone('Its source was deleted')
  const path = file.location ?? file.path
  const remote = await connectSource(source, deps)
  try {
    // What a server says when it cannot open a file does not tell whether there is one.
    if (!(await remote.stat(path))) throw new Gone(`There is no "${path}" any more`)
    // One byte more than it was is enough to tell that it is another one.
    return await deps.spool.receive(atMost(remote.read(path), file.size))
  } finally {
    await remote.close()
  }
}

/** It will not be there again. */
export function isHopeless(error: unknown): boolean {
  return error instanceof Gone
}
