import type { FileStatus } from '../../../task/source/source.ts'
import { facts, oneLine, paint, paintStatus, shortDuration, shortTime, table } from '../../output.ts'

/** The part of a file's JSON that people are shown. */
export interface StoredFile {
  id: string
  source: string
  sourceId: string
  path: string
  generation: number
  status: FileStatus
  size: number | null
  sha256: string | null
  paused: boolean
  taskId: string | null
  progress: {
    bytesRead: number
    recordsRead: number
    recordsRejected: number
    bytesPerSecond: number | null
    recordsPerSecond: number | null
    remaining: string | null
  }
  tasks: { total: number; succeeded: number; dead: number; live: number }
  after: { state: string; error: string | null; location: string | null } | null
  duplicateOf: string | null
  error: string | null
  seenAt: string
  fetchedAt: string | null
  importedAt: string | null
  finishedAt: string | null
}

export function fileTable(files: readonly StoredFile[]): string {
  const number = (head: string, cell: (file: StoredFile) => string | number) => ({ head, cell, right: true as const })
  return table<StoredFile>(
    [
      { head: 'FILE', cell: ({ id }) => id },
      { head: 'STATUS', cell: statusText },
      number('BYTES', ({ size }) => size ?? '-'),
      number('READ', ({ progress }) => progress.recordsRead),
      number('REJECTED', ({ progress }) => progress.recordsRejected),
      number('DONE', ({ tasks }) => tasks.succeeded),
      number('DEAD', ({ tasks }) => (tasks.dead > 0 ? paint('red', String(tasks.dead)) : '0')),
      { head: 'SEEN', cell: ({ seenAt }) => shortTime(seenAt) },
      { head: 'PATH', cell: ({ path, error }) => oneLine(error === null ? path : `${path}: ${error}`, 400) },
    ],
    files,
  )
}

export function statusText({ status, paused }: StoredFile): string {
  const styles: Partial<Record<FileStatus, string>> = { done: 'succeeded', failed: 'dead', importing: 'running' }
  const style = styles[status]
  const painted = style === undefined ? status : paintStatus(style).replace(style, status)
  return paused ? `${painted}, ${paintStatus('paused')}` : painted
}

export function fileDescription(file: StoredFile): string {
  const { progress, tasks, after } = file
  return facts([
    ['file', file.id],
    ['source', file.source],
    ['path', oneLine(file.path, 1_000)],
    ['version', String(file.generation)],
    ['status', statusText(file)],
    ['error', file.error === null ? undefined : paint('red', oneLine(file.error, 600))],
    ['bytes', file.size === null ? undefined : String(file.size)],
    ['sha256', file.sha256 ?? undefined],
    ['records', `${progress.recordsRead} read, ${progress.recordsRejected} rejected`],
    ['tasks', `${tasks.total}: ${tasks.succeeded} succeeded, ${tasks.dead} dead, ${tasks.live} live`],
    ['import', file.taskId ?? undefined],
    ['afterwards', after ? [after.state, after.location, after.error].filter(Boolean).join(', ') : undefined],
    ['same as', file.duplicateOf ?? undefined],
    ['seen', shortTime(file.seenAt)],
    ['fetched', shortTime(file.fetchedAt)],
    ['imported', file.importedAt === null ? undefined : `${shortTime(file.importedAt)} (${tookText(file)})`],
    ['finished', shortTime(file.finishedAt)],
  ])
}

function tookText({ fetchedAt, importedAt, progress }: StoredFile): string {
  const took = shortDuration(Date.parse(importedAt ?? '') - Date.parse(fetchedAt ?? ''))
  return `${took}, ${progress.recordsPerSecond ?? 0} records/s`
}

/** How far it is, in a line. */
export function progressText(file: StoredFile): string {
  const { progress, tasks } = file
  const words = [statusText(file), `${progress.recordsRead} records read`]
  if (progress.recordsRejected > 0) words.push(paint('yellow', `${progress.recordsRejected} rejected`))
  if (tasks.total > 0) words.push(`${tasks.succeeded} of ${tasks.total} tasks done`)
  if (tasks.dead > 0) words.push(paint('red', `${tasks.dead} dead`))
  return words.join(', ')
}
