import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { Problem } from '../../runtime/errors.ts'
import type { Database } from '../../store/database/database.ts'
import { createKey, deleteKey, listKeys } from '../../store/keys/keys.ts'
import { SCOPES } from '../../task/scope.ts'
import type { Access } from '../access.ts'
import { readBody } from '../body.ts'
import { describe } from '../openapi/describe.ts'
import { DEFAULT_LIMIT, PageOf, PageQuery, pageOf, placeOf } from '../page.ts'
import { noContent } from '../response.ts'
import { readQuery } from '../validation.ts'

export interface KeyDeps {
  db: Database['db']
  /** Called after every change of keys, so that this node follows it at once; others do within five seconds. */
  keysChanged(): void
}

const TAG = 'Keys'
const Scopes = Type.Array(Type.Union(SCOPES.map((scope) => Type.Literal(scope))), {
  minItems: 1,
  uniqueItems: true,
  description:
    'read, submit, operate and admin each include the former; work is for the worker protocol and status reports',
})
const Name = Type.String({ minLength: 1, maxLength: 128, description: 'For whom the key is' })
const KeyBody = Type.Object({ name: Name, scopes: Scopes }, { additionalProperties: false })
const KeySchema = Type.Object({
  id: Type.String(),
  name: Name,
  scopes: Scopes,
  createdAt: Type.String({ format: 'date-time' }),
})
const NewKeySchema = Type.Composite([KeySchema, Type.Object({ key: Type.String({ description: 'Shown this once' }) })])
const ListQuery = Type.Object(PageQuery, { additionalProperties: false })
const EXAMPLE = { id: '3f9c2a1b4d5e6f70', name: 'billing', scopes: ['submit'], createdAt: '2026-01-01T00:00:00.000Z' }

export function keyRoutes(access: Access, { db, keysChanged }: KeyDeps) {
  return new Elysia({ prefix: '/keys' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
        const [id] = after === undefined ? [] : placeOf(after, ['string'])
        return pageOf(await listKeys(db, limit + 1, id), limit, (key) => [key.id])
      },
      {
        scope: 'admin',
        detail: describe({
          tag: TAG,
          summary: 'List keys',
          description: 'Keys by id, without their secrets, which are not stored.',
          query: ListQuery,
          responses: { 200: ['A page of keys', PageOf(KeySchema), { items: [EXAMPLE], next: null }] },
        }),
      },
    )
    .post(
      '/',
      async ({ request, set }) => {
        const { name, scopes } = await readBody(KeyBody, request)
        const key = await createKey(db, name, scopes)
        keysChanged()
        set.status = 201
        set.headers['cache-control'] = 'no-store'
        return key
      },
      {
        scope: 'admin',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Make a key',
          description: 'The answer holds the key; it cannot be shown again.',
          body: [KeyBody, { name: 'billing', scopes: ['submit'] }],
          responses: {
            201: [
              'The new key',
              NewKeySchema,
              { ...EXAMPLE, key: `ls_${EXAMPLE.id}_7Jm0rHq2vXcN5bT8yLw3kPzAeUdRfGhSiQoMjVxC1nE` },
            ],
          },
        }),
      },
    )
    .delete(
      '/:id',
      async ({ params: { id } }) => {
        const deletion = await deleteKey(db, id)
        if (deletion === 'unknown') throw new Problem('not-found', `There is no key "${id}"`)
        if (deletion === 'last-admin') {
          throw new Problem('conflict', `The key "${id}" is the last one with the scope "admin"; make another first`)
        }
        keysChanged()
        return noContent()
      },
      {
        scope: 'admin',
        detail: describe({
          tag: TAG,
          summary: 'Delete a key',
          description: 'It opens nothing any more: here at once, on other nodes within five seconds.',
          params: { id: "The key's id" },
          responses: { 204: ['The key is gone'] },
          problems: ['not-found', 'conflict'],
        }),
      },
    )
}
