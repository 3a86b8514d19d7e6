import type { EventBatch, TaskChange } from '../../store/events.ts'
import type { Origin, Status } from '../../task/status.ts'

export const EVENT_KINDS = ['task', 'queue', 'node', 'file'] as const
export type EventKind = (typeof EVENT_KINDS)[number]

/** Which events a client wants; a missing field means any. */
export interface EventFilter {
  kinds?: EventKind[] | undefined
  queue?: string | undefined
  status?: Status[] | undefined
  type?: string | undefined
  parentId?: string | undefined
  origin?: Origin | undefined
  /** The name of the source of files. */
  source?: string | undefined
}

export function wants(filter: EventFilter, kind: EventKind): boolean {
  return filter.kinds === undefined || filter.kinds.includes(kind)
}

/** The same for filters that let the same through. */
export function filterKey({ kinds, queue, status, type, parentId, origin }: EventFilter): string {
  return JSON.stringify([kinds, queue, status, type, parentId, origin])
}

export function matches(filter: EventFilter, change: TaskChange): boolean {
  return (
    (filter.queue === undefined || filter.queue === change.queue) &&
    (filter.status === undefined || filter.status.includes(change.status)) &&
    (filter.type === undefined || filter.type === change.type) &&
    (filter.parentId === undefined || filter.parentId === change.parentId) &&
    (filter.origin === undefined || filter.origin === change.origin)
  )
}

const encoder = new TextEncoder()

/** One event of the stream (https://html.spec.whatwg.org/multipage/server-sent-events.html), with an id that a client comes back with. */
export function frame(lines: string, id?: number): Uint8Array {
  return encoder.encode(`${lines}\n${id === undefined ? '' : `id: ${id}\n`}\n`)
}

export function dataFrame(kind: EventKind, data: unknown): Uint8Array {
  return frame(`event: ${kind}\ndata: ${JSON.stringify(data)}`)
}

/** What of a batch passes the filter; the last event has its id, so that nobody comes back with half a batch. */
export function encodeBatch(batch: EventBatch, filter: EventFilter): Uint8Array | undefined {
  if (!wants(filter, 'task')) return undefined
  if (batch.changes === null) return frame('event: reset\ndata: {}', batch.id)
  const texts = batch.changes
    .filter((change) => matches(filter, change))
    .map((change) => `event: task\ndata: ${JSON.stringify(change)}\n`)
  return texts.length === 0 ? undefined : encoder.encode(`${texts.join('\n')}id: ${batch.id}\n\n`)
}
