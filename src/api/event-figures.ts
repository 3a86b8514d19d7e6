import type { Clock } from '../runtime/clock.ts'
import type { NodeView } from '../store/node-list.ts'
import type { QueueFigures } from '../store/queues.ts'
import { dataFrame, type EventFilter, type EventKind, wants } from './event-filter.ts'

export interface FigureSources {
  /** Figures of every queue, read at most every few seconds. */
  queues(): Promise<Map<string, QueueFigures>>
  /** The newest nodes. */
  nodes(): Promise<NodeView[]>
}

/** One figure that is other than it was. */
interface Change {
  /** Undefined for nodes. */
  queue: string | undefined
  chunk: Uint8Array
}

/** Queues' figures and nodes as events: states, not changes. Told once whole, and then again whenever they differ. */
export interface EventFigures {
  /** All of it, for a client that has just come. */
  first(filter: EventFilter): Promise<Uint8Array[]>
  /** What is other than when it was told last, if it is time to look and anybody wants to know. */
  changed(filters: EventFilter[]): Promise<[EventKind, Change[]][]>
  forget(): void
}

/** Counting waits costs the more the more waits. */
const QUEUES_EVERY_MS = 5_000
const NODES_EVERY_MS = 2_000

interface Told {
  at: number
  /** The event's data as JSON, by queue or node. */
  known: Map<string, string>
  first?: Promise<unknown>
}

export function createEventFigures(sources: FigureSources, clock: Clock): EventFigures {
  const told: { queue: Told; node: Told } = { queue: never(), node: never() }

  async function look(kind: 'queue' | 'node', everyMs: number): Promise<Change[]> {
    const before = told[kind]
    if (clock.now() - before.at < everyMs) return []
    before.at = clock.now()
    before.first ??= Promise.resolve()
    const now = kind === 'queue' ? queueStates(await sources.queues()) : nodeStates(await sources.nodes(), before.known)
    const changes: Change[] = []
    const queueOf = (name: string) => (kind === 'queue' ? name : undefined)
    for (const [name, data] of now) {
      const text = JSON.stringify(data)
      if (before.known.get(name) === text) continue
      before.known.set(name, text)
      changes.push({ queue: queueOf(name), chunk: dataFrame(kind, data) })
    }
    for (const name of before.known.keys()) {
      if (now.has(name)) continue
      before.known.delete(name)
      if (kind === 'queue')
        changes.push({ queue: name, chunk: dataFrame(kind, { queue: name, depth: null, oldestWaitingMs: null }) })
    }
    return changes
  }

  /** The first look, which all that come at the same time share. */
  function seen(kind: 'queue' | 'node'): Promise<unknown> {
    told[kind].first ??= look(kind, 0)
    return told[kind].first
  }

  return {
    async first(filter) {
      const chunks: Uint8Array[] = []
      for (const kind of ['queue', 'node'] as const) {
        if (!wants(filter, kind)) continue
        await seen(kind)
        for (const [name, text] of told[kind].known) {
          if (kind === 'node' || !filter.queue || filter.queue === name) chunks.push(dataFrame(kind, JSON.parse(text)))
        }
      }
      return chunks
    },
    async changed(filters) {
      const changes: [EventKind, Change[]][] = []
      if (filters.some((filter) => wants(filter, 'queue')))
        changes.push(['queue', await look('queue', QUEUES_EVERY_MS)])
      if (filters.some((filter) => wants(filter, 'node'))) changes.push(['node', await look('node', NODES_EVERY_MS)])
      return changes
    },
    forget() {
      told.queue = never()
      told.node = never()
    },
  }
}

function never(): Told {
  return { at: Number.NEGATIVE_INFINITY, known: new Map() }
}

function queueStates(queues: Map<string, QueueFigures>): Map<string, unknown> {
  return new Map([...queues].map(([queue, { depth, oldestWaitingMs }]) => [queue, { queue, depth, oldestWaitingMs }]))
}

/** Nodes that live, and those that did when they were told last. */
function nodeStates(nodes: NodeView[], known: Map<string, string>): Map<string, unknown> {
  return new Map(
    nodes
      .filter(({ id, status }) => status === 'alive' || known.has(id))
      .map(({ id, name, version, roles, startedAt, status }) => [id, { id, name, version, roles, startedAt, status }]),
  )
}
