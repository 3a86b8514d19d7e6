/*
 * A journal is text. A line of JSON heads each batch: where it begins, in which file, at what time. Under it stands a line a
 * task: its id and where its line ends. The semicolon tells a whole line from one that a crash cut off.
 *
 *   {"at":1764086400,"file":"orders.csv","inode":"4711","start":0,"begins":true}
 *   0193a1b2-....-............ 118;
 */

export interface Head {
  /** Seconds since 1970, by this machine's clock. */
  at: number
  /** Without its folder. */
  file: string
  inode: string
  /** Where the batch begins: at the end of the one before, unless it `begins` with a file. */
  start: number
  begins?: true
}

/** Where the last journalled line ends, in which file. */
export interface Position {
  file: string
  inode: string
  end: number
}

export interface JournalContent {
  /** Undefined: nothing was written yet. */
  position: Position | undefined
  ids: Set<string>
  /** Of the first batch. */
  since: number | undefined
  /** Bytes that are whole; what follows was cut off by a crash. */
  whole: number
}

const ENTRY = /^([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}) (\d{1,15});$/

/** ASCII, so that its characters are its bytes. */
export function headText(head: Head): string {
  const escaped = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
  return `${JSON.stringify(head).replace(/[^\x20-\x7e]/g, escaped)}\n`
}

export function entryText(id: string, end: number): string {
  return `${id} ${end};\n`
}

/**
 * Reads a journal. A batch counts when it begins a file, or where the one before ended: one that a writer appended late,
 * when another one had taken over, does not. Undefined when a line in the middle is none, which no crash does.
 */
export function readJournal(text: string): JournalContent | undefined {
  const content: JournalContent = { position: undefined, ids: new Set(), since: undefined, whole: 0 }
  let counts = false
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\n', at)
    const line = end < 0 ? '' : text.slice(at, end)
    const head = line.startsWith('{') ? readHead(line) : undefined
    const entry = head ? undefined : ENTRY.exec(line)
    if (!head && !entry) return /\n\{"at":\d+,/.test(text.slice(at)) ? undefined : content
    if (head) {
      counts = head.begins === true || continues(head, content.position)
      if (counts) content.position = { file: head.file, inode: head.inode, end: head.start }
      content.since ??= head.at
    } else if (entry && counts && content.position) {
      content.ids.add(entry[1] as string)
      content.position.end = Number(entry[2])
    }
    at = end + 1
    content.whole = at
  }
  return content
}

function continues(head: Head, position: Position | undefined): boolean {
  return head.file === position?.file && head.inode === position.inode && head.start === position.end
}

function readHead(line: string): Head | undefined {
  try {
    const { at, file, inode, start, begins } = JSON.parse(line) as Partial<Head>
    if (typeof at !== 'number' || typeof file !== 'string' || typeof inode !== 'string' || typeof start !== 'number')
      return undefined
    return { at, file, inode, start, ...(begins && { begins }) }
  } catch {
    return undefined
  }
}
