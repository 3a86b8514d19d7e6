import { Elysia } from 'elysia'
import { Problem } from '../runtime/errors.ts'
import { allows, type Principal, type Scope } from '../task/scope.ts'

/*
 * Every route names the scope it needs; authentication and scope come before the body is read and anything is checked.
 * A routes file looks like this (handlers throw Problem, never build error responses):
 *
 *   export interface QueueDeps { ... }
 *   export function queueRoutes(access: Access, deps: QueueDeps) {
 *     return new Elysia({ prefix: '/queues' })
 *       .use(access)
 *       .get('/', ({ principal, request }) => list(readQuery(ListQuery, request)), {
 *         scope: 'read',
 *         detail: describe({ summary, description, query: ListQuery, responses: { 200: [QueueList, example] } }),
 *       })
 *       .put('/:name', async ({ request, params, status }) => { const body = await readBody(QueueBody, request); ... }, {
 *         scope: 'operate', parse: 'none', detail: describe({ ..., body: [QueueBody, example] }),
 *       })
 *   }
 */

/** Finds whose key an `Authorization` header carries; undefined for none, an unreadable or an unknown one. Rejects when that is not known. */
export type Authenticate = (header: string | undefined) => Promise<Principal | undefined>

/** Reads the key from `Bearer <key>`, or from HTTP Basic with the key as password. */
export function keyOf(header: string | undefined): string | undefined {
  const [, scheme = '', credentials = ''] = /^(bearer|basic) +([^\s]+) *$/i.exec(header ?? '') ?? []
  if (scheme.toLowerCase() === 'bearer') return credentials
  if (scheme.toLowerCase() !== 'basic') return undefined
  const pair = Buffer.from(credentials, 'base64').toString('utf8')
  const colon = pair.indexOf(':')
  return colon === -1 || colon === pair.length - 1 ? undefined : pair.slice(colon + 1)
}

/** Whom a request is taken for although it brings no key that is known; undefined when for nobody. */
export type WithoutKey = (request: Request) => Principal | undefined

/** The request's principal; a Problem `unauthenticated` when there is none. */
export async function authenticated(
  request: Request,
  authenticate: Authenticate,
  withoutKey?: WithoutKey,
): Promise<Principal> {
  const header = request.headers.get('authorization') ?? undefined
  const principal = (await authenticate(header)) ?? withoutKey?.(request)
  if (principal) return principal
  throw new Problem(
    'unauthenticated',
    header === undefined
      ? 'Send a key: "Authorization: Bearer <key>", or HTTP Basic with the key as password'
      : 'The key in the Authorization header is not known here',
  )
}

/** A browser sends the Basic key that it was given along with what other sites ask it to fetch: such requests change nothing. */
export function refuseForeignPage(request: Request): void {
  const site = request.headers.get('sec-fetch-site')
  if (site === null || site === 'same-origin' || site === 'none') return
  throw new Problem(
    'forbidden',
    'A page of another site made the browser send this; changes are taken from our own pages only',
  )
}

/**
 * The plugin that lets a route say `{ scope: 'read' }` and gives its handler `principal`.
 * Works as a transform, the one stage that Elysia runs before validation.
 */
export function createAccess(
  authenticate: Authenticate,
  /** Elysia takes two plugins of one name for the same. */
  { name = 'access', withoutKey }: { name?: string; withoutKey?: WithoutKey | undefined } = {},
) {
  const principals = new WeakMap<Request, Principal>()
  return new Elysia({ name }).macro({
    /** One of these is enough. */
    scope: (scope: Scope | readonly Scope[]) => ({
      detail: {
        'x-scope': [scope].flat().join(' or '),
        security: [{ bearer: [] }, { basic: [] }],
      },
      transform: async ({ request }: { request: Request }) => {
        const principal = await authenticated(request, authenticate, withoutKey)
        if (request.method !== 'GET' && request.method !== 'HEAD') refuseForeignPage(request)
        const enough = [scope].flat()
        if (!enough.some((one) => allows(principal, one))) {
          const has = principal.scopes.length === 0 ? 'none' : principal.scopes.join(', ')
          const needs = enough.map((one) => `"${one}"`).join(' or ')
          throw new Problem('forbidden', `This needs the scope ${needs}; the key "${principal.name}" has: ${has}`)
        }
        principals.set(request, principal)
      },
      resolve: ({ request }: { request: Request }) => ({ principal: principals.get(request) as Principal }),
    }),
  })
}

export type Access = ReturnType<typeof createAccess>
