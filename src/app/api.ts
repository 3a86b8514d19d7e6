import { createApi } from '../api/app.ts'
import { checkReadiness } from '../api/readiness.ts'
import { scheduleRoutes } from '../api/routes/schedules.ts'
import { taskRoutes } from '../api/routes/tasks.ts'
import type { Config } from '../config.ts'
import type { Assets } from '../runtime/assets.ts'
import { realClock } from '../runtime/clock.ts'
import { createEgress } from '../runtime/egress.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import { serve } from '../runtime/serve.ts'
import { VERSION } from '../runtime/version.ts'
import type { Database } from '../store/database.ts'
import { authenticator } from '../store/keys.ts'
import { cancelTasks, cancelWaiting } from '../store/tasks/cancel.ts'
import { reportForeign } from '../store/tasks/foreign-report.ts'
import { removeTasks } from '../store/tasks/remove.ts'
import { replayTasks, runNow } from '../store/tasks/replay.ts'
import { createSubmitter } from '../submit/submitter.ts'
import { listHandlers } from '../targets/handlers-dir.ts'
import type { Node } from './node.ts'
import type { Stops } from './stops.ts'

/** How long requests in hand may take when the node stops. */
const REQUESTS_WITHIN_MS = 5_000

/** The HTTP side of a node; gives its URL. */
export async function startApi(
  config: Config,
  log: Logger,
  { db, pool }: Database,
  { heart, registry, dispatcher, notifications, workers, schedules, periodic, observed, touched }: Node,
  stops: Stops,
  assets?: Assets,
): Promise<string> {
  const tell = (error: unknown) => log.warn({ event: 'topology-read-failed', error: messageOf(error) })
  const wake = (queues: Iterable<string>) => {
    for (const queue of queues) dispatcher.wake(queue)
    notifications.send({ kind: 'wake', queues: [...queues] })
  }
  const keys = authenticator(db, realClock)
  const egress = createEgress(config.egress)
  const submitter = createSubmitter({
    pool,
    nodeId: () => heart.node(),
    log,
    onSubmitted(queues) {
      for (const [queue, delayMs] of queues) dispatcher.wake(queue, delayMs)
      notifications.send({ kind: 'wake', queues: [...queues.keys()] })
    },
    onStored: observed.submitted,
  })
  const handlers = () => listHandlers(config.handlersDir)
  const api = createApi({
    db,
    log,
    version: VERSION,
    ...(assets ? { readAsset: assets.read } : {}),
    authenticate: (key) => keys.authenticate(key),
    keysChanged() {
      keys.forget()
      observed.feed.closeAll()
      notifications.send({ kind: 'keys' })
    },
    topologyChanged() {
      registry.refresh().catch(tell)
      notifications.send({ kind: 'topology' })
    },
    purge: (queue) => cancelWaiting(pool, queue, touched),
    ...observed.deps,
    readiness: () =>
      checkReadiness({ pool, embedded: config.databaseUrl === undefined, mayStart: () => heart.mayStart() }),
    handlerNames: handlers,
    checkUrl: (url) => egress.checkUrl(url),
    routes: (access) => [
      observed.routes(access),
      scheduleRoutes(access, {
        pool,
        schedules,
        handlerNames: handlers,
        checkUrl: (url) => egress.checkUrl(url),
        periodic: () => periodic.map((one) => one.state()),
        now: () => realClock.now(),
        node: () => heart.node(),
      }),
      ...taskRoutes(access, {
        pool,
        submitter,
        tracing: observed.tracing,
        handlerNames: handlers,
        checkUrl: (url) => egress.checkUrl(url),
        async cancelTasks(ids) {
          const cancelled = await cancelTasks(pool, ids, touched)
          const running = cancelled.filter((one) => one.outcome === 'requested').map((one) => one.id)
          for (const id of running) for (const worker of workers.all()) worker.cancel(id)
          if (running.length > 0) notifications.send({ kind: 'cancel', ids: running })
          return cancelled
        },
        async replayTasks(ids) {
          const { replayed, queues } = await replayTasks(pool, ids, touched)
          wake(queues)
          return replayed
        },
        async runNow(ids) {
          const { due, queues } = await runNow(pool, ids)
          touched(ids)
          wake(queues)
          return due
        },
        deleteTasks: (ids) => removeTasks(pool, heart.node(), ids),
        async reportStatus(id, report, keyId) {
          const reported = await reportForeign(pool, id, report, keyId, (queue) => registry.retryOf(queue))
          touched([id])
          return reported
        },
      }),
    ],
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
  return server.url
}
