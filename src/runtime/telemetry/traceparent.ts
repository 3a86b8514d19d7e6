import { randomBytes } from 'node:crypto'

/** Where in a trace something happens (W3C Trace Context, https://www.w3.org/TR/trace-context/). */
export interface TraceContext {
  /** 32 hexadecimal digits, not all 0. */
  traceId: string
  /** 16 hexadecimal digits, not all 0: the span that causes what comes next. */
  spanId: string
  /** Somebody upstream records this trace. */
  sampled: boolean
}

const VERSION_0 = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?$/
/** No longer one is looked at. */
const MAX_LENGTH = 512

/** Reads a `traceparent` header; undefined when it is missing or malformed: then it counts as not sent. */
export function parseTraceparent(text: string | null | undefined): TraceContext | undefined {
  if (!text || text.length > MAX_LENGTH) return undefined
  const [, version, traceId = '', spanId = '', flags = '', more] = VERSION_0.exec(text) ?? []
  // Later versions may append fields; version 0 may not, and ff is forbidden.
  if (version === undefined || version === 'ff' || (version === '00' && more !== undefined)) return undefined
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined
  return { traceId, spanId, sampled: (Number.parseInt(flags, 16) & 1) === 1 }
}

export function formatTraceparent({ traceId, spanId, sampled }: TraceContext): string {
  return `00-${traceId}-${spanId}-0${sampled ? 1 : 0}`
}

/** A span of the same trace, or the first of a new one. */
export function childContext(parent: TraceContext | undefined): TraceContext {
  return {
    traceId: parent?.traceId ?? randomBytes(16).toString('hex'),
    spanId: randomBytes(8).toString('hex'),
    sampled: parent?.sampled ?? true,
  }
}

/**
 * The context of the next attempt: in the trace that the task was submitted with, else in a trace named by the task's id,
 * so that all attempts of a task are one trace that can be found by it; that one is marked as sampled, because a
 * receiver that goes by its caller would else record nothing. Undefined for an id that is no UUID.
 */
export function attemptContext(id: string, traceparent: string | null | undefined): TraceContext | undefined {
  const given = parseTraceparent(traceparent)
  if (given) return childContext(given)
  const traceId = id.replaceAll('-', '').toLowerCase()
  return /^[0-9a-f]{32}$/.test(traceId) ? childContext({ traceId, spanId: '', sampled: true }) : undefined
}
