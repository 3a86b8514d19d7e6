import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import type { Logger } from '../../../runtime/log.ts'
import type { Database } from '../../../store/database/database.ts'
import { fileById, listFiles, listRejects, type ReadFile } from '../../../store/files/list.ts'
import type { Access } from '../../access.ts'
import { fileJson } from '../../file-json.ts'
import { describe } from '../../openapi/describe.ts'
import { DEFAULT_LIMIT, PageOf, pageOf, placeOf, uuidIn } from '../../page.ts'
import { problemOf } from '../../problem.ts'
import { readQuery } from '../../validation.ts'
import { FILE_EXAMPLE, REJECT_EXAMPLE } from './examples.ts'
import { FILE_ID, FileSchema, FilesQuery, RejectsQuery } from './files-schema.ts'
import { rejectsCsv } from './rejects-csv.ts'
import { RejectSchema, SOURCE_ID } from './schema.ts'
import { knownSource } from './settings.ts'

export const FILES_TAG = 'Files'

/** The file that a path names; a Problem `not-found` when there is none. */
export async function knownFile(pool: Database['pool'], source: string, given: string): Promise<ReadFile> {
  const { id } = await knownSource(pool, source)
  const file = uuidIn(given)
  const found = file === undefined ? undefined : await fileById(pool, file)
  if (found?.sourceId !== id)
    throw new Problem('not-found', `The source "${source.slice(0, 128)}" has no file "${given.slice(0, 100)}"`)
  return found
}

export interface SourceFileDeps {
  pool: Database['pool']
  log: Logger
}

export function sourceFileRoutes(access: Access, { pool, log }: SourceFileDeps) {
  return new Elysia({ prefix: '/sources' })
    .use(access)
    .get(
      '/:id/files',
      async ({ request, params }) => {
        const { limit = DEFAULT_LIMIT, after, status, path } = readQuery(FilesQuery, request)
        const [seenAt, last] = after === undefined ? [] : placeOf(after, ['string', 'string'], isPlace)
        const { id: source } = await knownSource(pool, params.id)
        const read = await listFiles(pool, {
          ...{ source, status, path, limit: limit + 1 },
          after: seenAt === undefined || last === undefined ? undefined : { seenAt, id: last },
        })
        const { items, next } = pageOf(read, limit, ({ place }) => [place.seenAt, place.id])
        return { items: items.map(fileJson), next }
      },
      {
        scope: 'read',
        detail: describe({
          tag: FILES_TAG,
          summary: 'List the files of a source',
          description: 'Versions of files, those first that were seen last, each with the progress of its import.',
          params: SOURCE_ID,
          query: FilesQuery,
          responses: { 200: ['A page of files', PageOf(FileSchema), { items: [FILE_EXAMPLE], next: null }] },
          problems: ['not-found'],
        }),
      },
    )
    .get('/:id/files/:file', async ({ params }) => fileJson(await knownFile(pool, params.id, params.file)), {
      scope: 'read',
      detail: describe({
        tag: FILES_TAG,
        summary: 'Read a file',
        description:
          'A version of a file: its content’s SHA-256, counts, times, progress, rate and what remains. `taskId` is its import; GET /tasks?parentId= gives the tasks of its records, whose `parentId` leads back here: the payload of the import names source, file and path.',
        params: FILE_ID,
        responses: { 200: ['The file', FileSchema, FILE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
    .get(
      '/:id/files/:file/rejects',
      async ({ request, params }) => {
        const { limit = DEFAULT_LIMIT, after, format } = readQuery(RejectsQuery, request)
        const [number = 0] = after === undefined ? [] : placeOf(after, ['number'], ([at]) => Number.isSafeInteger(at))
        const { id } = await knownFile(pool, params.id, params.file)
        if ((format ?? accepted(request)) === 'csv')
          return rejectsCsv(pool, id, (error) => problemOf(error, request, log))
        return pageOf(await listRejects(pool, id, limit + 1, number), limit, (reject) => [reject.number])
      },
      {
        scope: 'read',
        detail: describe({
          tag: FILES_TAG,
          summary: 'List the rejected records of a file',
          description:
            'By their number, with the reason and the record as it stands in the file. With `format=csv` or `Accept: text/csv` the answer is a CSV file of all of them (number, line, reason, raw).',
          params: FILE_ID,
          query: RejectsQuery,
          responses: { 200: ['A page of rejects', PageOf(RejectSchema), { items: [REJECT_EXAMPLE], next: null }] },
          problems: ['not-found'],
        }),
      },
    )
}

/** A place that we gave out, so that Postgres can read it. */
function isPlace([seenAt, id]: readonly unknown[]): boolean {
  return /^\d{4}-\d{2}-\d{2} [\d:.]+[+-][\d:]+$/.test(String(seenAt)) && uuidIn(String(id)) !== undefined
}

function accepted(request: Request): 'csv' | 'json' {
  return /^\s*text\/csv\b/i.test(request.headers.get('accept') ?? '') ? 'csv' : 'json'
}
