import type { Static } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import { pollFailure } from '../../../sources/failures.ts'
import { browseSource, type Preview, type SourceTest, type TryDeps, testSource } from '../../../sources/try-source.ts'
import { isAboutDatabase } from '../../../store/database/database.ts'
import type { Access } from '../../access.ts'
import { describe } from '../../openapi/describe.ts'
import { jsonResponse } from '../../response.ts'
import { readQuery } from '../../validation.ts'
import { BROWSE_EXAMPLE, TEST_EXAMPLE } from './examples.ts'
import { BrowseQuery, BrowseSchema, SOURCE_ID, TestSchema } from './schema.ts'
import { knownSource, TAG } from './settings.ts'

/** Of one directory. */
const ENTRIES = 1_000

/** Looks at a source's server now, for the caller; polls are not touched. */
export function sourceLookRoutes(access: Access, deps: TryDeps) {
  const { pool } = deps
  return new Elysia({ prefix: '/sources' })
    .use(access)
    .post(
      '/:id/test',
      async ({ request: { signal }, params }) =>
        jsonResponse(testJson(await testSource(await knownSource(pool, params.id), deps, { signal }))),
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Test a source',
          description:
            'Connects, tells who answered, lists, and reads the first records of the first file; imports nothing. `failure` names the layer that failed. The first who answers is kept where nothing else vouches for who it is: the host key of SFTP, and a certificate that is not verified.',
          params: SOURCE_ID,
          responses: { 200: ['What was found; `ok` tells whether all is well', TestSchema, TEST_EXAMPLE] },
          problems: ['not-found'],
        }),
      },
    )
    .get(
      '/:id/browse',
      async ({ request, params }) => {
        const { path } = readQuery(BrowseQuery, request)
        const source = await knownSource(pool, params.id)
        try {
          const found = await browseSource(source, deps, { path, limit: ENTRIES, signal: request.signal })
          return browseJson(found)
        } catch (error) {
          if (isAboutDatabase(error)) throw error
          const { layer, reason, message } = pollFailure(error)
          throw new Problem('file-server', `${message} (${layer}: ${reason})`, [], { cause: error })
        }
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Look into a directory of the server',
          description:
            'One directory as it is now, by path, whatever the source includes; nothing is imported. It goes to the server with the credentials of the source, so it needs more than the scope read.',
          params: SOURCE_ID,
          query: BrowseQuery,
          responses: { 200: ['The directory', BrowseSchema, BROWSE_EXAMPLE] },
          problems: ['not-found', 'file-server'],
        }),
      },
    )
}

type Browsed = Awaited<ReturnType<typeof browseSource>>

function browseJson({ path, entries, more }: Browsed): Static<typeof BrowseSchema> {
  const items = entries.map(({ kind, path: at, size, modified, reason = null }) => ({
    ...{ path: at, kind, size, modified, reason },
  }))
  return { path, items: items.sort((a, b) => (a.path < b.path ? -1 : 1)), more }
}

/** As JSON text: records go out as they were read. */
function testJson(test: SourceTest): string {
  const { ok, tookMs, greeting, tlsVersion, identity, looked, files, preview } = test
  const failure =
    test.failure ?? (preview?.error == null ? null : { layer: 'parse', reason: 'malformed', message: preview.error })
  const listing = { looked, files: files.map(({ reason: _, ...file }) => file) }
  const before = JSON.stringify({ ok, failure, tookMs, greeting, tlsVersion, identity, listing }).slice(0, -1)
  return `${before},"preview":${preview === null ? 'null' : previewJson(preview)}}`
}

function previewJson({ path, contentType, records, rejects }: Preview): string {
  const before = JSON.stringify({ path, contentType, rejects }).slice(0, -1)
  return `${before},"records":[${records.join(',')}]}`
}
