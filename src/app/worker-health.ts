import type { BrokerState } from '../task/ledger.ts'

export interface WorkerHealthDeps {
  /** False while its last beat is too old to start anything. */
  mayStart(): boolean
  /** How the server stands; undefined while it answers. */
  away(): { since: string; reason: string } | undefined
  link(): BrokerState
}

/** Answers /health/live and /health/ready as a node does, so that the same supervisors and `longshore health` understand it. */
export function workerHealth(deps: WorkerHealthDeps): (request: Request) => Response {
  return (request) => {
    const { pathname } = new URL(request.url)
    if (pathname === '/health/live') return answer(200, { status: 'ok' })
    if (pathname !== '/health/ready') return answer(404, { status: 'not-found' })
    const checks = checksOf(deps)
    const ready = checks.every(({ ok }) => ok)
    return answer(ready ? 200 : 503, { status: ready ? 'ready' : 'not-ready', checks })
  }
}

/** Open to everybody: what is wrong is told, and where things are is not. */
function checksOf({ mayStart, away, link }: WorkerHealthDeps) {
  const missed = away()
  const broker = link()
  const beats = mayStart()
  return [
    {
      name: 'server',
      ok: missed === undefined,
      detail: missed ? `does not take what this worker tells since ${missed.since}; the log says why` : 'answers',
    },
    { name: 'broker', ok: broker.status === 'up', detail: `RabbitMQ is ${broker.status} since ${broker.since}` },
    {
      name: 'node',
      ok: beats,
      detail: beats ? 'beats' : 'its last beat is too old; it starts nothing until the server answers',
    },
  ]
}

function answer(status: number, body: object): Response {
  return Response.json(body, { status, headers: { 'cache-control': 'no-store' } })
}
