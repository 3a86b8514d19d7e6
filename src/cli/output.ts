import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

/** Text for people or machines, on standard output. */
export function print(text: string): void {
  process.stdout.write(text.endsWith('\n') ? text : `${text}\n`)
}

/** JSON for machines: one line, as the API gave it when it is text already. */
export function printJson(value: unknown): void {
  print(typeof value === 'string' ? value : JSON.stringify(value))
}

/** A remark beside the output, on standard error. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Colours only on a terminal that shows them; the stream itself honours NO_COLOR and TERM. */
export function paint(style: Style, text: string): string {
  const { stdout } = process
  return stdout.isTTY && stdout.hasColors?.() ? styleText(style, text, { validateStream: false }) : text
}

const STATUS_STYLES: Record<string, Style> = {
  ...{ succeeded: 'green', alive: 'green', ok: 'green', running: 'cyan', retrying: 'yellow', warning: 'yellow' },
  ...{ paused: 'yellow', dead: 'red', fault: 'red', cancelled: 'gray', left: 'gray' },
}

/** A status in its colour. */
export function paintStatus(status: string): string {
  const style = STATUS_STYLES[status]
  return style ? paint(style, status) : status
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: what a task says must not steer the reader's terminal.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g

/** One line without control characters, at most `width` long. */
export function oneLine(text: unknown, width = 100): string {
  const line = (text === null || text === undefined ? '' : String(text)).replace(CONTROL, ' ').trim()
  return line.length > width ? `${line.slice(0, width - 1)}…` : line
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: our own colours, which take no room.
const COLOURS = /\u001b\[[0-9;]*m/g
const widthOf = (text: string) => text.replace(COLOURS, '').length

/** One column of a table: its heading, its cell for a row, and whether it holds numbers (set right). */
export interface Column<T> {
  head: string
  cell: (row: T) => string | number
  right?: true
}

/** Rows in columns as wide as they need; the last one is cut at the terminal's edge. */
export function table<T>(columns: readonly Column<T>[], rows: readonly T[]): string {
  const cells = rows.map((row) => columns.map(({ cell }) => String(cell(row))))
  const widths = columns.map(({ head }, i) => Math.max(head.length, ...cells.map((line) => widthOf(line[i] ?? ''))))
  const edge = process.stdout.isTTY ? process.stdout.columns || Number.POSITIVE_INFINITY : Number.POSITIVE_INFINITY
  const lastWidth = Math.max(8, edge - widths.slice(0, -1).reduce((sum, width) => sum + width + 2, 0))
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => {
        if (i === columns.length - 1 && widthOf(text) > lastWidth && !columns[i]?.right) return oneLine(text, lastWidth)
        const room = ' '.repeat(Math.max(0, (widths[i] ?? 0) - widthOf(text)))
        return columns[i]?.right ? room + text : text + room
      })
      .join('  ')
      .trimEnd()
  return [paint('bold', line(columns.map(({ head }) => head))), ...cells.map(line)].join('\n')
}

/** Names and values, one a line. */
export function facts(entries: readonly (readonly [name: string, value: string | undefined])[]): string {
  const shown = entries.filter((entry): entry is readonly [string, string] => entry[1] !== undefined && entry[1] !== '')
  const width = Math.max(...shown.map(([name]) => name.length))
  return shown.map(([name, value]) => `${paint('bold', name.padEnd(width))}  ${value}`).join('\n')
}

export interface Progress {
  /** `done` of the total, with a few words. */
  at(done: number, words?: string): void
  end(): void
}

const BAR = 30
const EVERY_MS = 80

/** A bar on standard error while something long goes on; nothing when that is not a terminal. */
export function progressBar(total: number): Progress {
  const { stderr } = process
  if (!stderr.isTTY) return { at() {}, end() {} }
  let shownAt = Number.NEGATIVE_INFINITY
  let last = ''
  const draw = () => stderr.write(`\r\u001b[2K${last}`)
  return {
    at(done, words = '') {
      const share = total > 0 ? Math.min(1, done / total) : 0
      const full = Math.round(share * BAR)
      last = `${'█'.repeat(full)}${'░'.repeat(BAR - full)} ${String(Math.floor(share * 100)).padStart(3)} %  ${oneLine(words, 60)}`
      if (performance.now() - shownAt < EVERY_MS) return
      shownAt = performance.now()
      draw()
    },
    end() {
      if (last !== '') stderr.write(`\r\u001b[2K`)
    },
  }
}

/** A time as people read it: UTC, without fractions. */
export function shortTime(time: string | null | undefined): string {
  return time ? `${time.slice(0, 19).replace('T', ' ')}Z` : ''
}

/** How long `ms` is, in the two units that matter. */
export function shortDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`
  const s = ms / 1_000
  if (s < 60) return `${s.toFixed(1)} s`
  if (s < 3_600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`
  if (s < 86_400) return `${Math.floor(s / 3_600)} h ${Math.floor((s % 3_600) / 60)} min`
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3_600)} h`
}

/** `1 fault`, `2 faults`. */
export function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
