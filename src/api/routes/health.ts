import { Elysia } from 'elysia'
import { realClock, within } from '../../runtime/clock.ts'

/** One thing that a node needs to be ready. */
export interface ReadinessCheck {
  /** `database`, `migrations`, `broker`, `node`. */
  name: string
  ok: boolean
  /** Which engine, or what is wrong. */
  detail: string
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
        const ready = checks.every((check) => check.ok)
        if (!ready) set.status = 503
        return { status: ready ? 'ready' : 'not-ready', checks }
      },
      { detail: READY },
    )
}

const READY_SCHEMA = {
  type: 'object',
  required: ['status', 'checks'],
  properties: {
    status: { enum: ['ready', 'not-ready'] },
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
  description: 'Each check, and which engines are in use. No key is needed.',
  responses: {
    200: {
      description: 'Every check passed',
      content: {
        'application/json': {
          schema: READY_SCHEMA,
          example: { status: 'ready', checks: [{ name: 'database', ok: true, detail: 'embedded Postgres 18' }] },
        },
      },
    },
    503: {
      description: 'A check failed',
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
