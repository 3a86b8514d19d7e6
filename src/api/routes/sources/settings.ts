import type { Static } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../../runtime/errors.ts'
import type { Sources } from '../../../sources/sources.ts'
import type { Database } from '../../../store/database/database.ts'
import { findSource } from '../../../store/sources/find.ts'
import { listSources, type StoredSource } from '../../../store/sources/read.ts'
import {
  SOURCE_EXAMPLE as BODY_EXAMPLE,
  SourceBodySchema,
  type SourcePatch,
  SourcePatchSchema,
} from '../../../task/source/source.ts'
import type { Source } from '../../../task/source/state.ts'
import type { Access } from '../../access.ts'
import { readBody } from '../../body.ts'
import { describe } from '../../openapi/describe.ts'
import { cursorOf, DEFAULT_LIMIT, PageOf, placeOf } from '../../page.ts'
import { noContent } from '../../response.ts'
import { readQuery } from '../../validation.ts'
import { SOURCE_EXAMPLE } from './examples.ts'
import { SOURCE_ID, SourceSchema, SourcesQuery, TrustBody } from './schema.ts'

export interface SourceDeps {
  pool: Database['pool']
  sources: Sources
}

export const TAG = 'Sources'

/** The source that a path names; a Problem `not-found` when there is none. */
export async function knownSource(pool: Database['pool'], idOrName: string): Promise<StoredSource> {
  const source = await findSource(pool, idOrName)
  if (!source) throw unknownSource(idOrName)
  return source
}

function unknownSource(idOrName: string): Problem {
  return new Problem('not-found', `There is no source "${idOrName.slice(0, 128)}"`)
}

/** Why a source that exists is not polled. */
export function unpolled({ name }: Pick<Source, 'name'>, why: 'paused' | 'alert' | 'gone'): Problem {
  const reasons = {
    paused: 'is paused: resume it first',
    alert: 'is not polled, because somebody else answered than before: look at its `alert`, which says what to do',
    gone: 'is not polled, because its list does not name it any more',
  }
  return new Problem('conflict', `The source "${name}" ${reasons[why]}`)
}

export function sourceRoutes(access: Access, { pool, sources }: SourceDeps) {
  const known = (idOrName: string) => knownSource(pool, idOrName)
  const pausing = async (idOrName: string, paused: boolean) => {
    const { id } = await known(idOrName)
    const source = await sources.setPaused(id, paused)
    if (!source) throw unknownSource(idOrName)
    return sourceJson(source)
  }

  return new Elysia({ prefix: '/sources' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after, managedBy } = readQuery(SourcesQuery, request)
        const [name] = after === undefined ? [] : placeOf(after, ['string'])
        const read = await listSources(pool, { managedBy, after: name, limit: limit + 1 })
        const page = read.slice(0, limit)
        const next = read.length > limit ? cursorOf([page.at(-1)?.name ?? '']) : null
        return { items: page.map(sourceJson), next }
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'List sources',
          description: 'Sources by name, with what their last poll came to. Credentials are never shown.',
          query: SourcesQuery,
          responses: { 200: ['A page of sources', PageOf(SourceSchema), { items: [SOURCE_EXAMPLE], next: null }] },
        }),
      },
    )
    .post(
      '/',
      async ({ request, set }) => {
        const source = await sources.create(await readBody(SourceBodySchema, request))
        set.status = 201
        set.headers.location = `/api/v1/sources/${source.id}`
        return sourceJson(source)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Make a source',
          description:
            'A file server that is polled from now on, when it has a `cron`. Try it with POST .../test. Credentials are stored encrypted and never shown again. The first source makes the exchange `ftp_exchange` and the queues of imports.',
          body: [SourceBodySchema, BODY_EXAMPLE],
          responses: { 201: ['The source; `Location` names it', SourceSchema, SOURCE_EXAMPLE] },
          problems: ['conflict', 'secret-key-missing', 'unknown-queue'],
        }),
      },
    )
    .get('/:id', async ({ params }) => sourceJson(await known(params.id)), {
      scope: 'read',
      detail: describe({
        tag: TAG,
        summary: 'Read a source',
        description: 'A source, who its server is, and what the last poll came to.',
        params: SOURCE_ID,
        responses: { 200: ['The source', SourceSchema, SOURCE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
    .patch(
      '/:id',
      async ({ request, params }) => {
        const patch = (await readBody(SourcePatchSchema, request)) as SourcePatch
        const { id } = await known(params.id)
        const source = await sources.patch(id, patch)
        if (!source) throw unknownSource(params.id)
        return sourceJson(source)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Change a source',
          description:
            'A field that is given replaces what was there, whole; null takes it back to its default. With another host, port, protocol, `tls` or `hostKey` it may be another server: who answered before is forgotten, and a stored password does not go there, so that `auth` is needed again (422). What comes from a registry is changed there (409), but for a password that its list does not tell.',
          params: SOURCE_ID,
          body: [SourcePatchSchema, { cron: '*/10 * * * *', after: null }],
          responses: { 200: ['The source', SourceSchema, { ...SOURCE_EXAMPLE, cron: '*/10 * * * *' }] },
          problems: ['not-found', 'conflict', 'secret-key-missing', 'unknown-queue'],
        }),
      },
    )
    .delete(
      '/:id',
      async ({ params }) => {
        const { id } = await known(params.id)
        if (!(await sources.remove(id))) throw unknownSource(params.id)
        return noContent()
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Delete a source',
          description:
            'It is polled no more, and what is known of its files goes with it: made anew, it would import them again. Imports under way end there; tasks of records stay.',
          params: SOURCE_ID,
          responses: { 204: ['The source is gone'] },
          problems: ['not-found'],
        }),
      },
    )
    .post(
      '/:id/poll',
      async ({ params, set }) => {
        const source = await known(params.id)
        const wish = await sources.poll(source.id)
        if (wish === 'unknown') throw unknownSource(params.id)
        if (wish !== 'asked') throw unpolled(source, wish)
        set.status = 202
        return sourceJson(await known(source.id))
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Poll a source now',
          description:
            'As soon as a node with the role scheduler can; one that is under way is followed by another. `polledAt` and `poll` tell when it is done, and what it came to.',
          params: SOURCE_ID,
          responses: { 202: ['It will be polled', SourceSchema, SOURCE_EXAMPLE] },
          problems: ['not-found', 'conflict'],
        }),
      },
    )
    .post('/:id/pause', ({ params }) => pausing(params.id, true), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Pause a source',
        description: 'It is not polled any more until it is resumed. Imports of its files go on.',
        params: SOURCE_ID,
        responses: { 200: ['The source', SourceSchema, { ...SOURCE_EXAMPLE, paused: true, status: 'paused' }] },
        problems: ['not-found'],
      }),
    })
    .post('/:id/resume', ({ params }) => pausing(params.id, false), {
      scope: 'operate',
      parse: 'none',
      detail: describe({
        tag: TAG,
        summary: 'Resume a source',
        description: 'It is polled at once, and again by its cron expression.',
        params: SOURCE_ID,
        responses: { 200: ['The source', SourceSchema, SOURCE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
    .post(
      '/:id/trust',
      async ({ request, params }) => {
        const { fingerprint } = await readBody(TrustBody, request)
        const source = await known(params.id)
        if (!(await sources.confirm(source.id, fingerprint))) {
          const detail = `The source "${source.name}" has no alert about "${fingerprint}": read it again`
          throw new Problem('conflict', detail)
        }
        return sourceJson(await known(source.id))
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Confirm a changed identity',
          description:
            'When a server answers with another host key or certificate than before, polling stops with an `alert`. This takes the new one for right from now on, and polls. Compare the fingerprint by another way first: somebody may stand between. Where the source itself states `hostKey` or `tls.fingerprint`, that is what to change (409).',
          params: SOURCE_ID,
          body: [TrustBody, { fingerprint: SOURCE_EXAMPLE.pinned.hostKey.fingerprint }],
          responses: { 200: ['The source', SourceSchema, SOURCE_EXAMPLE] },
          problems: ['not-found', 'conflict'],
        }),
      },
    )
}

/** A source as responses show it; names its fields, so that nothing secret can slip in. */
export function sourceJson(source: Source): Static<typeof SourceSchema> {
  const { id, name, settings, auth, paused, managedBy, externalId, goneAt, pinned, alert } = source
  const { nextPollAt, polledAt, poll, createdAt, updatedAt } = source
  const status = paused ? 'paused' : alert ? 'alert' : goneAt ? 'gone' : 'active'
  return {
    ...{ id, name, ...settings, auth, paused, status, managedBy, externalId, goneAt, pinned, alert },
    ...{ nextPollAt, polledAt, createdAt, updatedAt },
    poll: poll as Static<typeof SourceSchema>['poll'],
  }
}
