import { type ApiDeps, createApi } from '../api/app.ts'
import { compatRoutes } from '../api/compat/compat.ts'
import { followOrderApi } from '../api/compat/consumer-management/order-target.ts'
import { checkReadiness } from '../api/readiness.ts'
import { scheduleRoutes } from '../api/routes/schedules.ts'
import { sourceRouteList } from '../api/routes/sources.ts'
import { taskRoutes } from '../api/routes/tasks.ts'
import { workerProtocolRoutes } from '../api/routes/worker-protocol.ts'
import type { ReadConnections } from '../broker/connections.ts'
import { createManagement } from '../broker/rabbitmq/management.ts'
import type { Config } from '../config.ts'
import { parseAmqpUrl } from '../runtime/amqp-url.ts'
import type { Assets } from '../runtime/assets.ts'
import { realClock } from '../runtime/clock.ts'
import { createEgress } from '../runtime/egress/egress.ts'
import type { Logger } from '../runtime/log.ts'
import { serve } from '../runtime/serve.ts'
import { VERSION } from '../runtime/version.ts'
import { createFiles } from '../sources/files.ts'
import type { Database } from '../store/database/database.ts'
import { authenticator } from '../store/keys/keys.ts'
import { registryState } from '../store/sources/managed.ts'
import { createSubmitter } from '../submit/submitter.ts'
import { listHandlers } from '../targets/handlers-dir.ts'
import { purgeQueue, resendQueued } from '../topology/purge-queue.ts'
import { removeQueue } from '../topology/remove-queue.ts'
import { olderSystems } from './api/older-systems.ts'
import { taskChanges } from './api/task-changes.ts'
import { openWorkerDoor } from './api/worker-door.ts'
import type { Node } from './node.ts'
import type { Stops } from './stops.ts'
import { tablesOf } from './tables.ts'

/** How long requests in hand may take when the node stops. */
const REQUESTS_WITHIN_MS = 5_000

/** The HTTP side of a node; gives its URL. */
export async function startApi(
  config: Config,
  log: Logger,
  database: Database,
  node: Node,
  stops: Stops,
  assets?: Assets,
): Promise<string> {
  const { db, pool, connection } = database
  const { broker, reconciler, heart, registry, notifications } = node
  const { schedules, sourcing, periodic, observed, touched, wakeAll, topologyChanged } = node
  const tasks = taskChanges(database, node)
  const keys = authenticator(db, realClock)
  const egress = createEgress(config.egress)
  const orderApi = { url: config.processOrderUrl, secret: config.processOrderSecret }
  const checkUrl = (url: string) => egress.checkUrl(url)
  if (config.compatRoutes && (await followOrderApi(db, orderApi, { checkUrl, log })) > 0) {
    await registry.refresh()
    notifications.send({ kind: 'topology' })
  }
  const submitter = createSubmitter({
    pool,
    nodeId: () => heart.node(),
    log,
    broker: broker.kind,
    onSubmitted: node.wakeAllAfter,
    onStored: observed.submitted,
  })
  // Without its credentials: the doors only need to know what may be written.
  const { schema, onlySchema } = tablesOf(config, connection)
  const tables = { schema, onlySchema }
  const upkeep = { pool, broker, changed: touched, wake: wakeAll }
  const remove: ApiDeps['removeQueue'] = (queue, guards) =>
    removeQueue(
      { ...upkeep, db, cancelTasks: tasks.cancelTasks, topologyChanged, recheck: reconciler.recheck },
      queue,
      guards,
    )
  const handlers = () => listHandlers(config.handlersDir)
  const managementConnections = managementOf(config)
  const door = openWorkerDoor(log, database, node)
  const api = createApi({
    db,
    broker,
    log,
    version: VERSION,
    ...(assets ? { readAsset: assets.read } : {}),
    authenticate: (key) => keys.authenticate(key),
    keysChanged() {
      keys.forget()
      observed.feed.closeAll()
      notifications.send({ kind: 'keys' })
    },
    topologyChanged,
    purge: (queue, purge) => purgeQueue(upkeep, queue, purge),
    resend: (queue) => resendQueued(upkeep, queue),
    removeQueue: remove,
    managementConnections,
    ...observed.deps,
    readiness: () =>
      checkReadiness({
        ...{ pool, broker, embedded: config.databaseUrl === undefined, mayStart: () => heart.mayStart() },
        registry: config.registryUrl ? () => registryState(pool) : undefined,
      }),
    handlerNames: handlers,
    checkUrl,
    tables,
    routes: (access) => [
      observed.routes(access),
      workerProtocolRoutes(access, door),
      scheduleRoutes(access, {
        pool,
        schedules,
        handlerNames: handlers,
        checkUrl,
        tables,
        periodic: () => periodic.map((one) => one.state()),
        now: () => realClock.now(),
        node: () => heart.node(),
      }),
      ...sourceRouteList(access, {
        ...sourcing.trying,
        log,
        sources: sourcing.sources,
        files: createFiles({ pool, cancelTasks: tasks.cancelTasks, wake: wakeAll, onChanged: sourcing.changed }),
        async cancelTask(task) {
          await tasks.cancelTasks([task])
        },
        async replayTask(task) {
          return (await tasks.replayTasks([task])).some(({ outcome }) => outcome === 'replayed')
        },
      }),
      ...taskRoutes(access, {
        pool,
        submitter,
        tracing: observed.tracing,
        handlerNames: handlers,
        checkUrl,
        tables,
        ...tasks,
      }),
    ],
    ...(config.compatRoutes && {
      compat: {
        withoutKey: config.compatAuth === 'none',
        routes: (access) =>
          compatRoutes(
            access,
            olderSystems({
              ...{ config, log, database, node, submitter, checkUrl, orderApi, managementConnections, topologyChanged },
              schema,
              removeQueue: remove,
              cancelWaiting: async (queue) => (await purgeQueue(upkeep, queue, 'cancel')).cancelled,
              reportStatus: tasks.reportStatus,
            }),
          ),
      },
    }),
  })
  notifications.onNotice((notice) => {
    if (notice.kind === 'keys') keys.forget()
  })
  const server = serve({ fetch: api.fetch, host: config.host, port: config.port, log })
  stops.push(async () => {
    await server.stop(REQUESTS_WITHIN_MS)
    await submitter.idle()
  })
  stops.push(() => observed.feed.stop())
  stops.push(async () => door.notices.close())
  return server.url
}

/** Asks RabbitMQ for all its connections, where it is said how. */
function managementOf({ amqpUrl, rabbitmqManagementUrl }: Config): ReadConnections | undefined {
  const [url] = amqpUrl?.reveal().split(',') ?? []
  if (url === undefined || !rabbitmqManagementUrl) return undefined
  return createManagement(rabbitmqManagementUrl.reveal(), parseAmqpUrl(url.trim()).vhost)
}
