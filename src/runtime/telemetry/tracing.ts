import { type Clock, pause, within } from '../clock.ts'
import { messageOf } from '../errors.ts'
import type { Logger, Secret } from '../log.ts'
import { childContext, type TraceContext } from './traceparent.ts'

/** Where spans go and how many of them. */
export interface TracingSettings {
  /** The collector's base URL; `/v1/traces` is added. */
  endpoint: string
  /** Headers for the collector, `name=value` separated by commas. */
  headers: Secret | undefined
  serviceName: string
  /** Share of traces begun here that are recorded, 0 to 1; those begun by a caller go by the caller. */
  ratio: number
}

export type SpanKind = 'server' | 'consumer' | 'client'
export type Attributes = Record<string, string | number | boolean>

/** Something that began and will end. */
export interface Span {
  readonly context: TraceContext
  /** Ends it; `error` makes it a failure. */
  end(attributes?: Attributes, error?: string): void
}

export interface Tracing {
  /** False: `start` gives no spans. */
  readonly exporting: boolean
  /** Begins a span under `parent`, or a trace of its own; undefined when nothing is exported. */
  start(name: string, kind: SpanKind, parent: TraceContext | undefined, attributes?: Attributes): Span | undefined
  /** Sends what waits, for some seconds at most, and ends. */
  stop(): Promise<void>
}

/** A node without a collector: it passes trace contexts on and records nothing. */
export const noTracing: Tracing = { exporting: false, start: () => undefined, stop: async () => {} }

export interface TracingDeps {
  settings: TracingSettings
  version: string
  /** Beside the service's name on every span, such as the node's id. */
  resource?: Attributes
  clock: Clock
  log: Logger
  onLost?(spans: number): void
}

/** A span as OTLP/HTTP writes it in JSON (https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding). */
interface OtlpSpan {
  traceId: string
  spanId: string
  parentSpanId?: string
  name: string
  kind: number
  startTimeUnixNano: string
  endTimeUnixNano: string
  attributes: OtlpAttribute[]
  status: { code: 0 | 2; message?: string }
}
interface OtlpAttribute {
  key: string
  value: { stringValue: string } | { boolValue: boolean } | { doubleValue: number } | { intValue: string }
}

const KINDS: Record<SpanKind, number> = { server: 2, client: 3, consumer: 5 }
const MAX_WAITING = 10_000
const MAX_BATCH = 1_000
const EVERY_MS = 1_000
const SEND_WITHIN_MS = 5_000
const STOP_WITHIN_MS = 3_000
const MAX_ERROR = 512

/**
 * Exports spans by OTLP/HTTP in JSON, a batch a second. Small on purpose: the SDK's packages weigh 26 MB. Spans wait in
 * memory up to a bound; what a collector does not take is tried once more, then dropped and counted, never awaited by work.
 */
export function createTracing(deps: TracingDeps): Tracing {
  const { settings, clock, log } = deps
  const url = `${settings.endpoint.replace(/\/+$/, '')}/v1/traces`
  const headers = { ...parseHeaders(settings.headers?.reveal() ?? ''), 'content-type': 'application/json' }
  const resource = {
    attributes: attributesOf({
      'service.name': settings.serviceName,
      'service.version': deps.version,
      ...deps.resource,
    }),
  }
  const scope = { name: 'longshore', version: deps.version }
  const stopping = new AbortController()
  const waiting: OtlpSpan[] = []
  let lost = 0
  let failing = false

  async function send(spans: OtlpSpan[], withinMs: number): Promise<void> {
    const body = JSON.stringify({ resourceSpans: [{ resource, scopeSpans: [{ scope, spans }] }] })
    const signal = AbortSignal.timeout(withinMs)
    const response = await fetch(url, { method: 'POST', headers, body, signal, redirect: 'error' })
    await response.arrayBuffer()
    if (!response.ok) throw new Error(`the collector answered ${response.status}`)
  }

  async function flush(withinMs: number): Promise<void> {
    while (waiting.length > 0) {
      const batch = waiting.splice(0, MAX_BATCH)
      try {
        await send(batch, withinMs).catch(() => send(batch, withinMs))
        failing = false
      } catch (error) {
        lost += batch.length
        // Once per outage: a collector may be away for days.
        if (!failing)
          log.warn({ event: 'spans-lost', spans: batch.length, error: messageOf(error) }, 'Cannot export trace spans')
        failing = true
      }
    }
    if (lost > 0) deps.onLost?.(lost)
    lost = 0
  }

  async function keepFlushing(): Promise<void> {
    while (!stopping.signal.aborted) {
      await pause(clock, EVERY_MS, stopping.signal)
      if (!stopping.signal.aborted) await flush(SEND_WITHIN_MS)
    }
  }
  const flushing = keepFlushing()

  return {
    exporting: true,
    start(name, kind, parent, attributes = {}) {
      const context = childContext(parent)
      if (!parent && settings.ratio < 1) context.sampled = Math.random() < settings.ratio
      const startedAt = unixNanos()
      return {
        context,
        end(more = {}, error) {
          if (!context.sampled) return
          if (waiting.length >= MAX_WAITING) {
            lost++
            return
          }
          waiting.push({
            traceId: context.traceId,
            spanId: context.spanId,
            ...(parent && { parentSpanId: parent.spanId }),
            name,
            kind: KINDS[kind],
            startTimeUnixNano: startedAt,
            endTimeUnixNano: unixNanos(),
            attributes: attributesOf({ ...attributes, ...more }),
            status: error === undefined ? { code: 0 } : { code: 2, message: error.slice(0, MAX_ERROR) },
          })
        },
      }
    },
    async stop() {
      stopping.abort()
      const sent = flushing.then(() => flush(STOP_WITHIN_MS))
      await within(clock, STOP_WITHIN_MS, sent, undefined)
    },
  }
}

function unixNanos(): string {
  const ms = performance.timeOrigin + performance.now()
  return `${BigInt(Math.floor(ms)) * 1_000_000n + BigInt(Math.floor((ms % 1) * 1e6))}`
}

function attributesOf(attributes: Attributes): OtlpAttribute[] {
  return Object.entries(attributes).map(([key, value]) => ({ key, value: anyValue(value) }))
}

function anyValue(value: string | number | boolean): OtlpAttribute['value'] {
  if (typeof value === 'string') return { stringValue: value }
  if (typeof value === 'boolean') return { boolValue: value }
  return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value }
}

/** `name=value` pairs, percent-encoded, separated by commas (the form of OTEL_EXPORTER_OTLP_HEADERS). */
function parseHeaders(text: string): Record<string, string> {
  const pairs = text.split(',').flatMap((pair) => {
    const at = pair.indexOf('=')
    return at > 0 ? [[pair.slice(0, at).trim().toLowerCase(), decode(pair.slice(at + 1).trim())] as const] : []
  })
  return Object.fromEntries(pairs)
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    return text
  }
}
