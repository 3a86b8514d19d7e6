import { until } from './until.ts'

/** One event of a stream as its client saw it. */
export interface SeenEvent {
  event: string
  // biome-ignore lint/suspicious/noExplicitAny: tests look into whatever came
  data: any
  id: string
}

export interface EventStream {
  readonly events: SeenEvent[]
  /** The last id, as a browser would come back with it. */
  lastId(): string
  comments: string[]
  /** Waits for an event that meets the condition. */
  seen(condition: (event: SeenEvent) => boolean, what: string, timeoutMs?: number): Promise<SeenEvent>
  /** True when the server has ended it. */
  ended(): boolean
  close(): Promise<void>
}

/** Listens as a browser's EventSource does (https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream). */
export async function listen(url: string, headers: Record<string, string>): Promise<EventStream> {
  const stop = new AbortController()
  const response = await fetch(url, { headers, signal: stop.signal })
  if (response.status !== 200) throw new Error(`${url} answered ${response.status}: ${await response.text()}`)
  const events: SeenEvent[] = []
  const comments: string[] = []
  let lastId = ''
  let ended = false
  const reading = (async () => {
    let rest = ''
    let block: { event: string; data: string[] } = { event: 'message', data: [] }
    const decoder = new TextDecoder()
    try {
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
        const lines = (rest + decoder.decode(chunk, { stream: true })).split('\n')
        rest = lines.pop() ?? ''
        for (const line of lines) {
          const [, name = '', value = ''] = /^([^:]*)(?:: ?(.*))?$/.exec(line) ?? []
          if (line === '') {
            if (block.data.length > 0)
              events.push({ event: block.event, data: JSON.parse(block.data.join('\n')), id: lastId })
            block = { event: 'message', data: [] }
          } else if (name === '') comments.push(value)
          else if (name === 'event') block.event = value
          else if (name === 'data') block.data.push(value)
          else if (name === 'id') lastId = value
        }
      }
    } catch {
      // Closed by the test, or cut.
    }
    ended = true
  })()
  return {
    events,
    comments,
    lastId: () => lastId,
    seen: (condition, what, timeoutMs) =>
      until(() => events.find(condition), { what, ...(timeoutMs === undefined ? {} : { timeoutMs }) }),
    ended: () => ended,
    async close() {
      stop.abort()
      await reading
    },
  }
}
