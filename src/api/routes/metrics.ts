import { Elysia } from 'elysia'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'

export interface MetricsDeps {
  /** The exposition text; never rejects because the database is away. */
  metricsText(): Promise<string>
}

const CONTENT_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

/** Outside of /api/v1, where Prometheus looks for it. */
export function metricsRoutes(access: Access, { metricsText }: MetricsDeps) {
  return new Elysia()
    .use(access)
    .get(
      '/metrics',
      async () =>
        new Response(await metricsText(), { headers: { 'content-type': CONTENT_TYPE, 'cache-control': 'no-store' } }),
      {
        scope: 'read',
        detail: describe({
          tag: 'Metrics',
          summary: 'Metrics for Prometheus',
          description:
            'Counters and histograms of this node, and gauges of the whole cluster that are at most some seconds old, in the text format of Prometheus (version 0.0.4). docs/metrics.md explains each.',
          responses: { 200: ['The metrics (`text/plain`)'] },
        }),
      },
    )
}
