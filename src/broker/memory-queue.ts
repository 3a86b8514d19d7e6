import type { Delivery } from './broker.ts'

/** A message that waits in memory, with its place in line. */
export interface Held {
  delivery: Delivery
  /** Rises with every message of a queue; what goes back, goes back to its place. */
  place: number
  priority: number
  /** Bytes, about. */
  weight: number
}

/** Messages in the order in which they are to be handed over: by priority, then by place. */
export interface MemoryQueue {
  readonly size: number
  put(held: Held): void
  take(): Held | undefined
  /** Takes everything. */
  clear(): Held[]
}

export function createMemoryQueue(): MemoryQueue {
  /** By priority, highest first. */
  const lines: { priority: number; line: Line }[] = []
  let size = 0

  function lineOf(priority: number): Line {
    let at = lines.findIndex((other) => other.priority <= priority)
    if (at < 0) at = lines.length
    const found = lines[at]
    if (found?.priority === priority) return found.line
    const line = createLine()
    lines.splice(at, 0, { priority, line })
    return line
  }

  function take(): Held | undefined {
    for (const { line } of lines) {
      const held = line.take()
      if (!held) continue
      size--
      return held
    }
    return undefined
  }

  return {
    get size() {
      return size
    },
    put(held) {
      lineOf(held.priority).put(held)
      size++
    },
    take,
    clear() {
      const all: Held[] = []
      for (let held = take(); held; held = take()) all.push(held)
      return all
    },
  }
}

interface Line {
  put(held: Held): void
  take(): Held | undefined
}

/** Emptied places at the head that are worth a move of the rest. */
const SPARE = 1_000

function createLine(): Line {
  let items: (Held | undefined)[] = []
  let head = 0

  /** Where a message with that place belongs: at an end, nearly always. */
  function indexOf(place: number): number {
    let [low, high] = [head, items.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((items[middle] as Held).place < place) low = middle + 1
      else high = middle
    }
    return low
  }

  return {
    put(held) {
      const last = items.at(-1)
      if (head === items.length || (last && last.place < held.place)) return void items.push(held)
      const index = indexOf(held.place)
      if (index > head || head === 0) return void items.splice(index, 0, held)
      items[--head] = held
    },
    take() {
      if (head === items.length) return undefined
      const held = items[head]
      items[head++] = undefined
      if (head === items.length || head >= SPARE) {
        items = items.slice(head)
        head = 0
      }
      return held
    },
  }
}
