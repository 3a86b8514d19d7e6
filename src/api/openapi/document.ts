import { toOpenAPISchema } from '@elysiajs/openapi'
import type { AnyElysia } from 'elysia'
import { PROBLEMS } from '../../runtime/errors.ts'

const TAGS = {
  Tasks: 'Submit work, follow it, steer it',
  Queues: 'Lines of tasks and their policies',
  Exchanges: 'Where one publish reaches several queues',
  Consumers: 'Who takes the tasks of a queue, and where they go',
  Schedules: 'Tasks that are submitted by the clock',
  Sources: 'File servers that are polled for files',
  Files: 'What was found there, and the import of each',
  Keys: 'Who may do what',
  Nodes: 'The processes that do the work',
  Workers: 'The protocol of workers without a database, in any language; docs/worker-protocol.md tells it whole',
  Accounting: 'Proof that nothing is lost',
  Health: 'For load balancers and supervisors; open',
  Documentation: 'This document, and the page that shows it',
  compat: 'The routes of older systems, for their clients; COMPAT_ROUTES=off switches them off',
}

interface Operation {
  parameters?: { in: string; name: string }[]
  [key: string]: unknown
}

/** The OpenAPI 3.1 document of every route that `app` has. */
export function openApiDocument(app: AnyElysia, version: string): object {
  const { paths, components } = toOpenAPISchema(app, { staticFile: false }, undefined, undefined, '3.1.2')
  const wildcards = new Map<string, string>()
  // The generator puts bare path parameters in the place of those that a route describes.
  for (const { method, path, hooks } of app.routes) {
    const described = (hooks as { detail?: Operation } | undefined)?.detail?.parameters
    const operations = paths[openApiPath(path)] as Record<string, Operation> | undefined
    const operation = operations?.[method.toLowerCase()]
    if (!operation || !described) continue
    const known = new Set(described.map((parameter) => `${parameter.in} ${parameter.name}`))
    const others = (operation.parameters ?? []).filter((parameter) => !known.has(`${parameter.in} ${parameter.name}`))
    operation.parameters = [...described, ...others]
    const rest = described.find((parameter) => parameter.in === 'path' && !path.includes(`:${parameter.name}`))
    if (path.endsWith('/*') && rest) wildcards.set(path, path.replace(/\*$/, `{${rest.name}}`))
  }
  const merged: Record<string, object> = {}
  for (const [path, operations] of Object.entries(paths)) {
    const key = path.length > 1 ? (wildcards.get(path) ?? path.replace(/\/$/, '')) : path
    merged[key] = { ...merged[key], ...operations }
  }
  return {
    openapi: '3.1.2',
    info: {
      title: 'Longshore',
      version,
      description: 'A self-hosted service for work that must not get lost.',
      license: { name: 'MIT', identifier: 'MIT' },
    },
    servers: [{ url: '/' }],
    tags: Object.entries(TAGS).map(([name, description]) => ({ name, description })),
    security: [{ bearer: [] }, { basic: [] }],
    paths: merged,
    components: {
      ...components,
      schemas: { ...components.schemas, Problem: PROBLEM_SCHEMA },
      securitySchemes: {
        bearer: { type: 'http', scheme: 'bearer', description: 'A key, `ls_...`' },
        basic: { type: 'http', scheme: 'basic', description: 'Any user name, with the key as password' },
      },
    },
  }
}

/** `/queues/:name` as `/queues/{name}`. */
function openApiPath(path: string): string {
  return path.replace(/:([^/]+)/g, '{$1}')
}

const PROBLEM_SCHEMA = {
  type: 'object',
  description: 'What went wrong (RFC 9457)',
  required: ['type', 'title', 'status', 'detail', 'code'],
  properties: {
    type: { type: 'string', description: '`urn:longshore:problem:<code>`' },
    title: { type: 'string' },
    status: { type: 'integer' },
    detail: { type: 'string', description: 'What happened and what to do' },
    code: { enum: Object.keys(PROBLEMS) },
    errors: {
      type: 'array',
      description: 'The fields that are wrong',
      items: {
        type: 'object',
        required: ['path', 'message'],
        properties: { path: { type: 'string', description: 'A JSON Pointer' }, message: { type: 'string' } },
      },
    },
  },
  example: {
    type: 'urn:longshore:problem:validation',
    title: PROBLEMS.validation[1],
    status: 422,
    detail: '/concurrency: must be at most 10000',
    code: 'validation',
    errors: [{ path: '/concurrency', message: 'must be at most 10000' }],
  },
}
