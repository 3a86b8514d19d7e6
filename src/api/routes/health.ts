import { Elysia } from 'elysia'
import { realClock, within } from '../../runtime/clock.ts'

/** One thing that a node needs to be ready. */
export interface ReadinessCheck {
  /** `database`, `broker`, `node`, `registry`; a worker without a database has `server` for `database`. */
  name: string
  ok: boolean
  /** Which engine, or what is wrong. */
  detail: string
  /** Without it the node still takes tasks: ready, but degraded. */
  dispensable?: boolean
}

export interface HealthDeps {
  /** Every check with its own time limit; never rejects for what a check finds. */
  readiness(): Promise<{ checks: ReadinessCheck[] }>
}

/** After this long without an answer the node is not ready, in milliseconds. */
const PATIENCE_MS = 3_000
const SILENT = { checks: [{ name: 'checks', ok: false, detail: `no answer within ${PATIENCE_MS} ms` }] }

/** Open to everybody: no key, and nothing in the answers that needs one. */
export function healthRoutes({ readiness }: HealthDeps) {
  return new Elysia({ prefix: '/health' })
    .get(
      '/live',
      ({ set }) => {
        set.headers['cache-control'] = 'no-store'
        return { status: 'ok' }
      },
      { detail: LIVE },
    )
    .get(
      '/ready',
      async ({ set }) => {
        set.headers['cache-control'] = 'no-store'
        const { checks } = await within(realClock, PATIENCE_MS, readiness(), SILENT)
        const status = statusOf(checks)
        if (status === 'not-ready') set.status = 503
        return { status, checks: checks.map(({ name, ok, detail }) => ({ name, ok, detail })) }
      },
      { detail: READY },
    )
}

function statusOf(checks: ReadinessCheck[]): 'ready' | 'degraded' | 'not-ready' {
  const failed = checks.filter((check) => !check.ok)
  if (failed.length === 0) return 'ready'
  return failed.every((check) => check.dispensable) ? 'degraded' : 'not-ready'
}

const READY_SCHEMA = {
  type: 'object',
  required: ['status', 'checks'],
  properties: {
    status: { enum: ['ready', 'degraded', 'not-ready'] },
    checks: {
      type: 'array',
      items: {
        type: 'object',
        required: ['name', 'ok', 'detail'],
        properties: { name: { type: 'string' }, ok: { type: 'boolean' }, detail: { type: 'string' } },
      },
    },
  },
} as const

const LIVE = {
  tags: ['Health'],
  security: [],
  summary: 'Is the process alive?',
  description: 'Answers as long as the process does; asks nothing else. No key is needed.',
  responses: {
    200: {
      description: 'It is',
      content: {
        'application/json': {
          schema: { type: 'object', required: ['status'], properties: { status: { const: 'ok' } } },
          example: { status: 'ok' },
        },
      },
    },
  },
} as object

const READY = {
  tags: ['Health'],
  security: [],
  summary: 'Can the node work?',
  description:
    'Each check, and which engines are in use. `degraded`: tasks are accepted and safe, but something beside the database is away, such as RabbitMQ. No key is needed.',
  responses: {
    200: {
      description: 'Tasks are accepted',
      content: {
        'application/json': {
          schema: READY_SCHEMA,
          example: {
            status: 'ready',
            checks: [
              { name: 'database', ok: true, detail: 'embedded Postgres 18.4' },
              { name: 'broker', ok: true, detail: 'in-process' },
            ],
          },
        },
      },
    },
    503: {
      description: 'Tasks cannot be accepted',
      content: {
        'application/json': {
          schema: READY_SCHEMA,
          example: {
            status: 'not-ready',
            checks: [{ name: 'database', ok: false, detail: 'no round trip within 2 s' }],
          },
        },
      },
    },
  },
} as object
