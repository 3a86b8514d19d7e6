import { randomBytes } from 'node:crypto'
import type { Static } from '@sinclair/typebox'
import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { invalid } from '../../runtime/errors.ts'
import { changedSettings, newSettings, type RegistryConnection } from '../../sources/registry/list.ts'
import type { Sources } from '../../sources/sources.ts'
import type { Database } from '../../store/database/database.ts'
import { numberOf, sourceByNumber } from '../../store/sources/by-number.ts'
import { listSources, type StoredSource } from '../../store/sources/read.ts'
import type { WantedTopology } from '../../store/topology/ensure.ts'
import { CONTENT_TYPES, type SourcePatch } from '../../task/source/source.ts'
import type { Source } from '../../task/source/state.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import type { EnsureDeps } from './ensured.ts'
import * as schema from './ftp-producer/schema.ts'
import { readOldBody } from './old-body.ts'
import { Errors, orErrors } from './old-errors.ts'

export interface FtpProducerDeps extends EnsureDeps {
  pool: Database['pool']
  sources: Pick<Sources, 'create' | 'patch' | 'remove'>
  /** Makes the table where rows of files end, unless it is there. */
  ensureTransactions(): Promise<void>
}

/** Where records go, as in the older system: into its table. */
const RECORDS = 'client_transaction'
const WANTED: WantedTopology = {
  queues: [
    {
      name: RECORDS,
      consumers: [
        { target: { type: 'table', table: 'client_transaction' }, concurrency: 50, timeoutMs: 30_000, paused: false },
      ],
    },
  ],
}

const A_PAGE = 500
const older = { tag: 'compat', older: { invalid: 'bad-request' } } as const
const ID = { id: Type.Integer({ description: "The connection's id" }) }
const NOT_THERE = ['There is no such connection', schema.NotFound, schema.NOT_FOUND] as const
const REFUSED = ['What is not valid, by field', Errors, schema.ERRORS_EXAMPLE] as const

/** The registry of FTP connections of the older producer: each is a source. */
export function ftpProducerRoutes(access: Access, deps: FtpProducerDeps) {
  const { pool, sources } = deps

  return new Elysia()
    .use(access)
    .get('/ftp/api/list/', () => allConnections(pool), {
      scope: 'read',
      detail: describe({
        ...older,
        summary: 'List FTP connections',
        description:
          'Sources with the protocol ftp and one content type, but for those that come from a registry themselves (FTP_REGISTRY_URL): a list that named them would go round in circles. Passwords are never shown.',
        responses: { 200: ['The connections', Type.Array(schema.Connection), [schema.CONNECTION_EXAMPLE]] },
      }),
    })
    .post(
      '/ftp/api/create/',
      ({ request }) =>
        orErrors(async () => {
          const { body } = await readOldBody(schema.ConnectionBody, request)
          const wanted = newSource(body)
          await deps.ensureTransactions()
          await deps.ensureTopology(WANTED)
          const source = await sources.create(wanted)
          return Response.json(done('created', source), { status: 201 })
        }),
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Make an FTP connection',
          description:
            'A source that is polled every minute; its records go through the queue `client_transaction` into the table of that name, which are made when they are missing.',
          body: [schema.ConnectionBody, schema.BODY_EXAMPLE],
          responses: {
            201: ['It was made', schema.Done, done('created', { id: '019b7a3e-5c00-7000-8000-001cbe991a14' })],
            400: REFUSED,
          },
          problems: ['conflict', 'secret-key-missing'],
        }),
      },
    )
    .get(
      '/ftp/api/get/:id/',
      async ({ params }) => {
        const source = await connectionOf(pool, params.id)
        return source ? Response.json(shown(source)) : notFound()
      },
      {
        scope: 'read',
        detail: describe({
          ...older,
          summary: 'Read an FTP connection',
          description: 'Without its password.',
          params: ID,
          responses: { 200: ['The connection', schema.Connection, schema.CONNECTION_EXAMPLE], 404: NOT_THERE },
        }),
      },
    )
    .put(
      '/ftp/api/update/:id/',
      ({ request, params }) =>
        orErrors(async () => {
          const source = await connectionOf(pool, params.id)
          if (!source) return notFound()
          const { body } = await readOldBody(schema.ChangeBody, request)
          checkId(source, body)
          const changed = await sources.patch(source.id, patchOf(source, body))
          return changed ? Response.json(done('updated', changed)) : notFound()
        }),
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Change an FTP connection',
          description: 'What is left out stays. Another user name, host or port needs the password.',
          params: ID,
          body: [schema.ChangeBody, { directory: '/reports' }],
          responses: {
            200: ['It was changed', schema.Done, done('updated', { id: '019b7a3e-5c00-7000-8000-001cbe991a14' })],
            400: REFUSED,
            404: NOT_THERE,
          },
          problems: ['conflict', 'secret-key-missing'],
        }),
      },
    )
    .delete(
      '/ftp/api/delete/:id/',
      async ({ params }) => {
        const source = await connectionOf(pool, params.id)
        if (!source || !(await sources.remove(source.id))) return notFound()
        return Response.json(done('deleted', source))
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Delete an FTP connection',
          description: 'It is polled no more; rows that are imported stay.',
          params: ID,
          responses: {
            200: ['It is gone', schema.Done, done('deleted', { id: '019b7a3e-5c00-7000-8000-001cbe991a14' })],
            404: NOT_THERE,
          },
        }),
      },
    )
}

function done(what: 'created' | 'updated' | 'deleted', { id }: Pick<Source, 'id'>): Static<typeof schema.Done> {
  return { message: `FTP connection ${what} successfully`, ftp_connection: numberOf(id) }
}

function notFound(): Response {
  return Response.json(schema.NOT_FOUND, { status: 404 })
}

async function allConnections(pool: Database['pool']): Promise<Static<typeof schema.Connection>[]> {
  const found: Static<typeof schema.Connection>[] = []
  let after: string | undefined
  for (;;) {
    const page = await listSources(pool, { after, limit: A_PAGE })
    found.push(...page.filter(isConnection).map(shown))
    if (page.length < A_PAGE) return found
    after = page.at(-1)?.name
  }
}

async function connectionOf(pool: Database['pool'], id: string): Promise<StoredSource | undefined> {
  const number = /^\d{1,15}$/.test(id) ? Number(id) : undefined
  const source = number === undefined ? undefined : await sourceByNumber(pool, number)
  return source && isConnection(source) ? source : undefined
}

function isConnection({ managedBy, settings }: Source): boolean {
  return managedBy === null && settings.protocol === 'ftp' && contentTypeOf(settings) !== undefined
}

function contentTypeOf({ format }: Source['settings']) {
  return CONTENT_TYPES.find((type) => type === format?.type)
}

function shown({ id, settings, auth }: Source): Static<typeof schema.Connection> {
  return {
    id: numberOf(id),
    host: settings.host,
    port: settings.port ?? 21,
    username: auth?.username ?? '',
    directory: settings.directory ?? '',
    content_type: contentTypeOf(settings) ?? 'csv',
  }
}

function checkId(source: Source, { id }: Static<typeof schema.ChangeBody>): void {
  const inPath = numberOf(source.id)
  if (id !== undefined && id !== inPath) throw invalid('/id', `must be ${inPath}, as in the path, or left out`)
}

function portOf(given: number | string): number {
  const port = Number(given)
  if (port < 1 || port > 65_535) throw invalid('/port', 'must be from 1 to 65535')
  return port
}

function connection(body: Static<typeof schema.ConnectionBody>): RegistryConnection {
  const { host, port = 21, username = '', password, directory = '', content_type: contentType } = body
  return { externalId: '', host, port: portOf(port), directory, contentType, username, password }
}

function newSource(body: Static<typeof schema.ConnectionBody>): Parameters<Sources['create']>[0] {
  const asked = connection(body)
  const { username, password = '' } = asked
  const auth = username === '' ? undefined : { kind: 'password' as const, username, password }
  const name = `ftp-${asked.host.replace(/[^A-Za-z0-9.-]/g, '-').slice(0, 100)}-${randomBytes(4).toString('hex')}`
  return { name, ...newSettings(asked), deliver: { queue: RECORDS }, ...(auth && { auth }) }
}

function patchOf(source: StoredSource, body: Static<typeof schema.ChangeBody>): SourcePatch {
  const { username, password } = body
  const before = shown(source)
  const asked = connection({ ...before, port: body.port ?? before.port, ...withoutId(body) })
  const { format, include, host, port, directory } = changedSettings(source.settings, asked)
  if (username !== undefined && username !== before.username && username !== '' && password === undefined) {
    throw invalid('/password', 'is required with another user name')
  }
  const name = username ?? before.username
  const auth =
    name === '' ? null : password === undefined ? undefined : { kind: 'password' as const, username: name, password }
  return {
    ...{ format: format ?? null, include: include ?? null, host, port: port ?? null, directory: directory ?? null },
    ...(auth !== undefined && { auth }),
  }
}

function withoutId({ host, directory, content_type }: Static<typeof schema.ChangeBody>) {
  return {
    ...(host !== undefined && { host }),
    ...(directory !== undefined && { directory }),
    ...(content_type !== undefined && { content_type }),
  }
}
