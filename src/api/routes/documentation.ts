import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../runtime/errors.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { docsAssets, docsPage, type ReadAsset } from '../openapi/docs-page.ts'

export interface DocumentationDeps {
  /** The OpenAPI document; asked once. */
  document(): object
  readAsset: ReadAsset
}

const TAG = 'Documentation'
const HTML = 'Open it in a browser, with any user name and a key as password. It asks nothing of other servers.'

/** `/openapi.json`, and `/docs`, which shows it. */
export function documentationRoutes(access: Access, { document, readAsset }: DocumentationDeps) {
  const asset = docsAssets(readAsset)
  let json: string | undefined
  return new Elysia()
    .use(access)
    .get(
      '/openapi.json',
      () => {
        json ??= JSON.stringify(document())
        return new Response(json, { headers: { 'content-type': 'application/json', 'cache-control': 'no-cache' } })
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'The OpenAPI document',
          description: 'OpenAPI 3.1, of this very version.',
          responses: { 200: ['The document', Type.Object({ openapi: Type.String() }), { openapi: '3.1.2' }] },
        }),
      },
    )
    .get('/docs', () => docsPage(), {
      scope: 'read',
      detail: describe({ tag: TAG, summary: 'The API as a page', description: HTML, responses: { 200: ['HTML'] } }),
    })
    .get(
      '/docs/:file',
      async ({ params: { file }, request }) => {
        const response = await asset(file, request.headers.get('if-none-match'))
        if (!response) throw new Problem('not-found', `There is no file "${file}" here`)
        return response
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'A file of the page',
          description: 'Style and scripts, from this server.',
          params: { file: "The file's name" },
          responses: { 200: ['The file'], 304: ['It has not changed'] },
          problems: ['not-found'],
        }),
      },
    )
}
