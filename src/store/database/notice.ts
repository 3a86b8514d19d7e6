/** What one node tells the others. */
export type Notice =
  /** Tasks are waiting in these queues. */
  | { kind: 'wake'; queues: string[] }
  /** A cancel was asked for these running tasks; none named: for more than can be named. */
  | { kind: 'cancel'; ids: string[] }
  | { kind: Plain }

const PLAIN = [
  /** Queues or consumers changed. */
  'topology',
  /** API keys changed. */
  'keys',
  /** Schedules changed. */
  'schedules',
  /** Sources changed, or files of theirs wait for a poller. */
  'sources',
  /** Task events were written. */
  'events',
  /** Somebody listens to task events: they are to be written. */
  'events-wanted',
] as const
type Plain = (typeof PLAIN)[number]

/** Postgres refuses 8000 bytes and more. */
const PAYLOAD_BYTES = 7_900
/** Of them for the sender and the frame. */
const FRAME_BYTES = 100
/** Beyond this a list of ids is worth less than a look at the table. */
const MAX_IDS = 1_000

/** Notices that wait to be sent, merged. */
export class NoticeBatch {
  #plain = new Set<Plain>()
  #queues = new Set<string>()
  #ids = new Set<string>()

  add(notice: Notice): void {
    switch (notice.kind) {
      case 'wake':
        for (const queue of notice.queues) this.#queues.add(queue)
        return
      case 'cancel':
        for (const id of notice.ids) this.#ids.add(id)
        return
      default:
        this.#plain.add(notice.kind)
    }
  }

  /** Empties the batch into payloads that Postgres takes. */
  take(sender: string): string[] {
    const notices: Notice[] = [
      ...[...this.#plain].map((kind) => ({ kind })),
      ...split([...this.#queues]).map((queues) => ({ kind: 'wake' as const, queues })),
      ...(this.#ids.size > MAX_IDS ? [[]] : split([...this.#ids])).map((ids) => ({ kind: 'cancel' as const, ids })),
    ]
    this.#plain.clear()
    this.#queues.clear()
    this.#ids.clear()
    return notices.map((notice) => JSON.stringify({ sender, ...notice }))
  }
}

/** Lists that fit into a payload each; none of nothing. */
function split(items: string[]): string[][] {
  const parts: string[][] = []
  let room = 0
  for (const item of items) {
    const size = Buffer.byteLength(JSON.stringify(item)) + 1
    if (size > room) {
      parts.push([])
      room = PAYLOAD_BYTES - FRAME_BYTES
    }
    parts.at(-1)?.push(item)
    room -= size
  }
  return parts
}

/** The notice in a payload of another sender; none in our own, and none in what cannot be read. */
export function parseNotice(text: string, self: string): Notice | undefined {
  const { sender, kind, queues, ids } = read(text)
  if (sender === self) return undefined
  if (kind === 'wake') return isTexts(queues) ? { kind, queues } : undefined
  if (kind === 'cancel') return isTexts(ids) ? { kind, ids } : undefined
  const plain = PLAIN.find((known) => known === kind)
  return plain && { kind: plain }
}

function read(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
  } catch {
    return {}
  }
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'string')
}
