import type { Clock } from '../../runtime/clock.ts'
import type { ReadFile } from '../../store/files/list.ts'
import type { NodeView } from '../../store/node-list.ts'
import type { QueueFigures } from '../../store/topology/queues.ts'
import { fileJson } from '../file-json.ts'
import { dataFrame, type EventFilter, type EventKind, wants } from './filter.ts'

export interface FigureSources {
  /** Figures of every queue, read at most every few seconds. */
  queues(): Promise<Map<string, QueueFigures>>
  /** The newest nodes. */
  nodes(): Promise<NodeView[]>
  /** Files that are on their way or have just ended, and those with these ids, whatever became of them. */
  files(ids: string[]): Promise<ReadFile[]>
}

/** A figure as it is to be told. */
export interface Figure {
  /** What it is about, where filters go by that. */
  queue?: string
  source?: string
  chunk: Uint8Array
}

/** Queues' figures, nodes and files as events: states, not changes. Told once whole, and then again whenever they differ. */
export interface EventFigures {
  /** All of it, for a client that has just come. */
  first(filter: EventFilter): Promise<Uint8Array[]>
  /** What is other than when it was told last, if it is time to look and anybody wants to know. */
  changed(filters: EventFilter[]): Promise<[EventKind, Figure[]][]>
  forget(): void
}

/** Whether a figure is one that the filter lets through, kinds aside. */
export function isAbout({ queue, source }: Omit<Figure, 'chunk'>, filter: EventFilter): boolean {
  return (
    (queue === undefined || filter.queue === undefined || queue === filter.queue) &&
    (source === undefined || filter.source === undefined || source === filter.source)
  )
}

const KINDS = ['queue', 'node', 'file'] as const
type Kind = (typeof KINDS)[number]

/** Counting waits costs the more the more waits. */
const EVERY_MS: Record<Kind, number> = { queue: 5_000, node: 2_000, file: 1_000 }

/** A queue, a node or a file as it was read. */
interface State extends Omit<Figure, 'chunk'> {
  data: unknown
  /** It is told again when this differs. */
  key: string
  /** Nothing more will become of it: it need not be read again. */
  isOver?: boolean
}
type States = Map<string, State>

interface Told {
  at: number
  known: States
  first?: Promise<unknown>
}

export function createEventFigures(sources: FigureSources, clock: Clock): EventFigures {
  const told: Record<Kind, Told> = { queue: never(), node: never(), file: never() }
  const read: Record<Kind, (known: States) => Promise<States>> = {
    queue: async (known) => queueStates(await sources.queues(), known),
    node: async (known) => nodeStates(await sources.nodes(), known),
    file: async (known) =>
      fileStates(await sources.files([...known].flatMap(([id, { isOver }]) => (isOver ? [] : id)))),
  }

  async function look(kind: Kind, everyMs: number): Promise<Figure[]> {
    const before = told[kind]
    if (clock.now() - before.at < everyMs) return []
    before.at = clock.now()
    before.first ??= Promise.resolve()
    const now = await read[kind](before.known)
    const changes = [...now].filter(([name, { key }]) => before.known.get(name)?.key !== key)
    before.known = now
    return changes.map(([, state]) => ({ ...state, chunk: dataFrame(kind, state.data) }))
  }

  /** The first look, which all that come at the same time share. */
  function seen(kind: Kind): Promise<unknown> {
    told[kind].first ??= look(kind, 0)
    return told[kind].first
  }

  return {
    async first(filter) {
      const chunks: Uint8Array[] = []
      for (const kind of KINDS) {
        if (!wants(filter, kind)) continue
        await seen(kind)
        for (const state of told[kind].known.values())
          if (!state.isOver && isAbout(state, filter)) chunks.push(dataFrame(kind, state.data))
      }
      return chunks
    },
    async changed(filters) {
      const changes: [EventKind, Figure[]][] = []
      for (const kind of KINDS)
        if (filters.some((filter) => wants(filter, kind))) changes.push([kind, await look(kind, EVERY_MS[kind])])
      return changes
    },
    forget() {
      for (const kind of KINDS) told[kind] = never()
    },
  }
}

function never(): Told {
  return { at: Number.NEGATIVE_INFINITY, known: new Map() }
}

const stateOf = (data: object): State => ({ data, key: JSON.stringify(data) })

/** Of a queue that has nothing any more it is told that this is so. */
function queueStates(queues: Map<string, QueueFigures>, known: States): States {
  const states: States = new Map()
  for (const [queue, { depth, oldestWaitingMs }] of queues)
    states.set(queue, { queue, ...stateOf({ queue, depth, oldestWaitingMs }) })
  for (const [queue, { isOver }] of known) {
    if (!isOver && !states.has(queue))
      states.set(queue, { queue, isOver: true, ...stateOf({ queue, depth: null, oldestWaitingMs: null }) })
  }
  return states
}

/** Nodes that live, and those that did when they were told last. */
function nodeStates(nodes: NodeView[], known: States): States {
  return new Map(
    nodes
      .filter(({ id, status }) => status === 'alive' || known.has(id))
      .map(({ id, name, version, roles, startedAt, status }) => [
        id,
        stateOf({ id, name, version, roles, startedAt, status }),
      ]),
  )
}

/** A file that stands still has a lower rate each time, which is no news. */
function fileStates(files: ReadFile[]): States {
  return new Map(
    files.map((file) => [
      file.id,
      {
        source: file.source,
        data: fileJson(file),
        key: JSON.stringify({ ...file, attemptMs: null }),
        isOver: file.finishedAt !== null,
      },
    ]),
  )
}
