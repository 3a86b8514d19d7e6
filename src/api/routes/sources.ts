import type { TryDeps } from '../../sources/try-source.ts'
import type { Access } from '../access.ts'
import { type FileActionDeps, sourceFileActionRoutes } from './sources/file-actions.ts'
import { type SourceFileDeps, sourceFileRoutes } from './sources/files.ts'
import { sourceLookRoutes } from './sources/looks.ts'
import { type SourceDeps, sourceRoutes } from './sources/settings.ts'

export interface SourceRouteDeps extends SourceDeps, TryDeps, SourceFileDeps, FileActionDeps {}

/** Everything about sources and their files. */
export function sourceRouteList(access: Access, deps: SourceRouteDeps) {
  return [
    sourceRoutes(access, deps),
    sourceLookRoutes(access, deps),
    sourceFileRoutes(access, deps),
    sourceFileActionRoutes(access, deps),
  ]
}
