import { type AnyElysia, Elysia } from 'elysia'
import { messageOf, Problem } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Principal } from '../task/scope.ts'
import { type Access, type Authenticate, authenticated, createAccess, keyOf } from './access.ts'
import { withoutKey } from './compat/without-key.ts'
import { installedAsset, type ReadAsset } from './openapi/docs-page.ts'
import { openApiDocument } from './openapi/document.ts'
import { problemOf, problemResponse } from './problem.ts'
import { routeTable } from './route-table.ts'
import { accountingRoutes } from './routes/accounting.ts'
import { type ConnectionDeps, connectionRoutes } from './routes/connections.ts'
import { type ConsumerDeps, consumerRoutes } from './routes/consumers.ts'
import { documentationRoutes } from './routes/documentation.ts'
import { exchangeBindingRoutes } from './routes/exchanges/bindings.ts'
import { type ExchangeDeps, exchangeRoutes } from './routes/exchanges.ts'
import { type HealthDeps, healthRoutes } from './routes/health.ts'
import { type KeyDeps, keyRoutes } from './routes/keys.ts'
import { metricsRoutes } from './routes/metrics.ts'
import { nodeRoutes } from './routes/nodes.ts'
import { queueMessageRoutes } from './routes/queues/messages.ts'
import { type QueueUpkeepDeps, queueUpkeepRoutes } from './routes/queues/upkeep.ts'
import { type QueueDeps, queueRoutes } from './routes/queues.ts'

export interface ApiDeps
  extends QueueDeps,
    QueueUpkeepDeps,
    ExchangeDeps,
    ConnectionDeps,
    ConsumerDeps,
    KeyDeps,
    HealthDeps {
  /** Whose key this is; undefined when unknown. Rejects when that cannot be told. */
  authenticate(key: string): Promise<Principal | undefined>
  /** Further routes below /api/v1. */
  routes(access: Access): AnyElysia[]
  /** The routes of older systems, at the root; without it there are none. `withoutKey`: this machine's clients need none. */
  compat?: { routes(access: Access): AnyElysia[]; withoutKey: boolean }
  /** What `GET /metrics` answers; without it there is no such route. */
  metricsText?(): Promise<string>
  /** Told of every request: its route's pattern (`unknown` when it has none), and milliseconds until its answer. */
  onAnswered?(request: { route: string; method: string; status: number; ms: number }): void
  /** The product's version. */
  version: string
  log: Logger
  /** Where Swagger UI's files come from; by default the installed package. */
  readAsset?: ReadAsset
}

export interface Api {
  /** Answers a request; never rejects. `peer` is the caller's address, for the log. */
  fetch(request: Request, peer?: string): Promise<Response>
}

/** The whole HTTP side: routes, errors, documentation. */
export function createApi(deps: ApiDeps): Api {
  const peers = new WeakMap<Request, string>()
  const authenticate: Authenticate = async (header) => {
    const key = keyOf(header)
    return key === undefined ? undefined : deps.authenticate(key)
  }
  const access = createAccess(authenticate)

  const v1 = new Elysia({ prefix: '/api/v1' })
    .use(queueRoutes(access, deps))
    .use(queueUpkeepRoutes(access, deps))
    .use(queueMessageRoutes(access, deps))
    .use(exchangeRoutes(access, deps))
    .use(exchangeBindingRoutes(access, deps))
    .use(consumerRoutes(access, deps))
    .use(keyRoutes(access, deps))
    .use(nodeRoutes(access, deps))
    .use(connectionRoutes(access, deps))
    .use(accountingRoutes(access, deps))
  for (const routes of deps.routes(access)) v1.use(routes)

  const documentation = documentationRoutes(access, {
    document: () => openApiDocument(app, deps.version),
    readAsset: deps.readAsset ?? installedAsset,
  })
  const app: AnyElysia = new Elysia({ normalize: false, handler: { standardHostname: false } })
    .onError(({ error, code, request }) => failed(request, code, error))
    .use(healthRoutes(deps))
    .use(documentation)
    .use(v1)
  if (deps.compat) {
    const options = { name: 'compat-access', ...(deps.compat.withoutKey && { withoutKey }) }
    for (const routes of deps.compat.routes(createAccess(authenticate, options))) app.use(routes)
  }
  if (deps.metricsText) app.use(metricsRoutes(access, { metricsText: deps.metricsText }))
  const table = routeTable(app.routes)

  /** What the router does not know is told to those with a key only. */
  const unrouted = async (request: Request): Promise<Response> => {
    await authenticated(request, authenticate)
    const { pathname } = new URL(request.url)
    const methods = table.methodsOf(pathname)
    if (methods.length === 0) return problemResponse(new Problem('not-found', `There is nothing at ${pathname}`))
    const allow = methods.join(', ')
    return problemResponse(new Problem('method-not-allowed', `${pathname} takes ${allow}, not ${request.method}`), {
      allow,
    })
  }
  const failed = async (request: Request, code: unknown, error: unknown): Promise<Response> => {
    try {
      if (error instanceof Problem) return problemResponse(error)
      if (code === 'NOT_FOUND') return await unrouted(request)
      if (code === 'PARSE')
        return problemResponse(new Problem('malformed-json', `The body cannot be read: ${messageOf(error)}`))
      return problemResponse(problemOf(error, request, deps.log, peers.get(request)))
    } catch (thrown) {
      return problemResponse(problemOf(thrown, request, deps.log, peers.get(request)))
    }
  }

  const answer = async (request: Request, peer: string | undefined): Promise<Response> => {
    if (peer !== undefined) peers.set(request, peer)
    try {
      // Of a Host header that is none, no URL can be made.
      if (!URL.canParse(request.url)) {
        return problemResponse(new Problem('bad-request', 'The Host header is not a host name with an optional port'))
      }
      if (unreadablePath(request.url)) {
        await authenticated(request, authenticate)
        throw new Problem('bad-request', 'The path is not valid: it holds NUL, or a % that is no UTF-8')
      }
      return await app.fetch(request)
    } catch (error) {
      return failed(request, undefined, error)
    }
  }

  return {
    async fetch(request, peer) {
      if (!deps.onAnswered) return answer(request, peer)
      const startedAt = performance.now()
      const response = await answer(request, peer)
      deps.onAnswered({
        ...table.routeOf(request.method, request.url),
        status: response.status,
        ms: performance.now() - startedAt,
      })
      return response
    },
  }
}

function unreadablePath(url: string): boolean {
  if (!url.includes('%')) return false
  try {
    return decodeURIComponent(new URL(url).pathname).includes('\0')
  } catch {
    return true
  }
}
