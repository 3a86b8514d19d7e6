import type { Clock } from '../../runtime/clock.ts'
import { messageOf, Problem } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { EventBatch } from '../../store/events.ts'
import { createEventClient, type EventClient } from './client.ts'
import { createEventFigures, type EventFigures, type FigureSources, isAbout } from './figures.ts'
import { type EventFilter, encodeBatch, filterKey, frame, wants } from './filter.ts'

export interface EventFeedDeps extends FigureSources {
  clock: Clock
  log: Logger
  /** Event batches after an id, the oldest first. */
  read(after: number, limit: number): Promise<EventBatch[]>
  /** The id of the last event batch. */
  last(): Promise<number>
  /** What came after an id until now; undefined when that is not known, or more than `maxTasks` changes. */
  missed(id: number, maxTasks: number): Promise<EventBatch[] | undefined>
  /** Asks all nodes to write events for so long. */
  want(forMs: number): Promise<void>
  /** A client was cut because it did not read. */
  onCut?(): void
  /** By default 1,000. */
  maxClients?: number
  /** How much may wait for one client, by default 2 MiB, and for all of them, by default 64 MiB. */
  maxClientBytes?: number
  maxTotalBytes?: number
  /** By default 10,000. */
  heartbeatMs?: number
}

/** Carries events to the clients that listen on this node. */
export interface EventFeed {
  /** A client's stream, from what it saw last on; rejects with a Problem `overloaded` when there are too many. */
  open(filter: EventFilter, lastEventId: string | undefined): Promise<Pick<EventClient, 'stream' | 'cutSignal'>>
  /** Says that event batches were written. */
  look(): void
  clients(): number
  /** Ends every stream: clients come back with the key that they have now. */
  closeAll(): void
  stop(): Promise<void>
}

export const MAX_EVENT_CLIENTS = 1_000
export const HEARTBEAT_MS = 10_000
/** Events are wanted for this long, and that is renewed each `LEASE_EVERY_MS`. */
const LEASE_MS = 30_000
const LEASE_EVERY_MS = 10_000
/** Behind every notice of new events stands this look. */
const TICK_MS = 1_000
const READ_BATCHES = 50
/** A client that missed more reads again instead. */
const RESUME_TASKS = 1_000
/** How long a browser waits before it comes back, in milliseconds. */
const RETRY_MS = 2_000

export function createEventFeed(deps: EventFeedDeps): EventFeed {
  const { clock, log, maxClients = MAX_EVENT_CLIENTS, heartbeatMs = HEARTBEAT_MS } = deps
  const { maxClientBytes = 2 * 1024 * 1024, maxTotalBytes = 64 * 1024 * 1024 } = deps
  const clients = new Set<EventClient>()
  const figures: EventFigures = createEventFigures(deps, clock)
  /** The last batch that was carried; undefined while nobody listens, and until the first look. */
  let cursor: number | undefined
  let beginning: Promise<void> | undefined
  let reading = false
  let readAgain = false
  let ticking = () => {}
  let leasedAt = Number.NEGATIVE_INFINITY
  let beatAt = 0
  let work: Promise<void> = Promise.resolve()
  let stopped = false

  /** Where a client begins: known once for all that come at the same time. */
  async function begin(): Promise<void> {
    await deps.want(LEASE_MS)
    leasedAt = clock.now()
    cursor = await deps.last()
  }

  function begun(): Promise<void> {
    if (cursor !== undefined) return Promise.resolve()
    beginning ??= begin().finally(() => {
      beginning = undefined
    })
    return beginning
  }

  async function join(client: EventClient, lastEventId: string | undefined): Promise<void> {
    try {
      const from = cursor ?? 0
      client.hold()
      client.send(frame(`retry: ${RETRY_MS}\n: longshore events`, lastEventId === undefined ? from : undefined))
      client.joined = true
      if (lastEventId !== undefined) await resume(client, lastEventId, from)
      for (const chunk of await figures.first(client.filter)) client.send(chunk)
      client.release()
    } catch (error) {
      log.warn({ event: 'events-failed', error: messageOf(error) }, 'A client of the event feed cannot be served')
      client.end()
    }
  }

  /** What the client missed until `from`, where the live events begin; else it is told to read again. */
  async function resume(client: EventClient, lastEventId: string, from: number): Promise<void> {
    const id = /^\d{1,15}$/.test(lastEventId) ? Number(lastEventId) : undefined
    const missed = id === undefined ? undefined : await deps.missed(id, RESUME_TASKS)
    if (!missed) return client.sendFirst(frame('event: reset\ndata: {}', from))
    for (const batch of missed) {
      const chunk = batch.id <= from ? encodeBatch(batch, client.filter) : undefined
      if (chunk) client.sendFirst(chunk)
    }
  }

  async function readNew(): Promise<void> {
    if (reading || cursor === undefined) {
      readAgain = reading
      return
    }
    reading = true
    try {
      do {
        readAgain = false
        const batches = await deps.read(cursor, READ_BATCHES)
        // Everybody may have left meanwhile.
        if (cursor === undefined) return
        for (const batch of batches) {
          carry(batch)
          cursor = batch.id
        }
        readAgain ||= batches.length === READ_BATCHES
      } while (readAgain && clients.size > 0)
    } catch (error) {
      log.debug({ event: 'events-failed', error: messageOf(error) })
    } finally {
      reading = false
    }
  }

  /** Encodes a batch once for all clients with the same filter. */
  function carry(batch: EventBatch): void {
    const chunks = new Map<string, Uint8Array | undefined>()
    for (const client of clients) {
      if (!client.joined) continue
      const key = filterKey(client.filter)
      if (!chunks.has(key)) chunks.set(key, encodeBatch(batch, client.filter))
      const chunk = chunks.get(key)
      if (chunk) client.send(chunk)
    }
    bound()
  }

  /** Cuts who reads too slowly, and the slowest when all together are too much. */
  function bound(): void {
    let total = 0
    for (const client of clients) {
      if (client.waitingBytes() > maxClientBytes) cut(client)
      else total += client.waitingBytes()
    }
    if (total <= maxTotalBytes) return
    for (const client of [...clients].sort((a, b) => b.waitingBytes() - a.waitingBytes())) {
      total -= client.waitingBytes()
      cut(client)
      if (total <= maxTotalBytes) return
    }
  }

  function cut(client: EventClient): void {
    log.info({ event: 'events-client-cut', bytes: client.waitingBytes() }, 'A client of the event feed does not read')
    deps.onCut?.()
    client.cut()
  }

  function tick(): void {
    ticking = clock.after(TICK_MS, () => {
      work = upkeep().finally(() => {
        if (clients.size > 0 && !stopped) tick()
      })
    })
  }

  async function upkeep(): Promise<void> {
    try {
      if (clock.now() - leasedAt >= LEASE_EVERY_MS) {
        await deps.want(LEASE_MS)
        leasedAt = clock.now()
      }
      if (clock.now() - beatAt >= heartbeatMs) beat()
      await readNew()
      for (const [kind, changes] of await figures.changed([...clients].map((client) => client.filter))) {
        for (const client of clients) {
          if (!client.joined || !wants(client.filter, kind)) continue
          for (const figure of changes) if (isAbout(figure, client.filter)) client.send(figure.chunk)
        }
      }
      bound()
    } catch (error) {
      log.debug({ event: 'events-failed', error: messageOf(error) })
    }
  }

  function beat(): void {
    beatAt = clock.now()
    const chunk = frame(': beat', cursor)
    for (const client of clients) if (client.joined) client.send(chunk)
  }

  function left(client: EventClient): void {
    if (!clients.delete(client) || clients.size > 0) return
    ticking()
    cursor = undefined
    figures.forget()
  }

  return {
    async open(filter, lastEventId) {
      if (stopped) throw new Problem('shutting-down', 'The node is shutting down: listen on another one')
      if (clients.size >= maxClients) {
        throw new Problem('overloaded', `${maxClients} clients listen to events on this node already: try later`)
      }
      const client = createEventClient(filter, left)
      clients.add(client)
      if (clients.size === 1) {
        cursor = undefined
        beatAt = clock.now()
        tick()
      }
      try {
        await begun()
      } catch (error) {
        client.end()
        throw error
      }
      void join(client, lastEventId)
      return client
    },
    look() {
      if (clients.size > 0) void readNew()
    },
    clients: () => clients.size,
    closeAll() {
      for (const client of [...clients]) client.end()
    },
    async stop() {
      stopped = true
      ticking()
      for (const client of [...clients]) client.end()
      await work
    },
  }
}
