/** What a spreadsheet may take for the beginning of a formula (OWASP, "CSV Injection"), or what was made of it here. */
const FORMULA = /^'*[=+\-@\t\r\n]/

/** RFC 4180. */
export const LINE_END = '\r\n'

export interface LineFormat {
  delimiter: string
  guardFormulas: boolean
}

/** One line with its end. A cell is the text that it shows; null is nothing, which is not the same as an empty text. */
export function csvLine(cells: readonly (string | null)[], { delimiter }: Pick<LineFormat, 'delimiter'>): string {
  const written = cells.map((cell) => (cell === null ? '' : quoteIfNeeded(cell, delimiter)))
  // A line without anything would be taken for none.
  return (written.length === 1 && written[0] === '' ? '""' : written.join(delimiter)) + LINE_END
}

/** The cell of a JSON value (its text): texts as they are, numbers digit by digit, objects and arrays as their JSON. */
export function cellOf(json: string | undefined, { guardFormulas }: Pick<LineFormat, 'guardFormulas'>): string | null {
  if (json === undefined || json === 'null') return null
  return json.startsWith('"') ? guarded(JSON.parse(json) as string, guardFormulas) : json
}

/** A column's name as a cell. */
export function guarded(text: string, guardFormulas: boolean): string {
  return guardFormulas && FORMULA.test(text) ? `'${text}` : text
}

/** The name that was guarded. */
export function unguarded(cell: string, guardFormulas: boolean): string {
  return guardFormulas && cell.startsWith("'") && FORMULA.test(cell.slice(1)) ? cell.slice(1) : cell
}

function quoteIfNeeded(text: string, delimiter: string): string {
  const plain = text !== '' && !text.includes(delimiter) && !/["\r\n]|^\s|\s$/.test(text)
  return plain ? text : `"${text.replaceAll('"', '""')}"`
}

/** The cells of the first line of `text`; undefined when it does not end within it, or is no CSV. */
export function firstLine(text: string, delimiter: string): string[] | undefined {
  const cells: string[] = []
  let at = text.startsWith('\uFEFF') ? 1 : 0
  for (;;) {
    let cell = ''
    if (text[at] === '"') {
      for (at++; ; at++) {
        const end = text.indexOf('"', at)
        if (end < 0) return undefined
        cell += text.slice(at, end)
        at = end + 1
        if (text[at] !== '"') break
        cell += '"'
      }
    } else {
      const [found = ''] = /^[^\r\n]*/.exec(text.slice(at)) ?? []
      const next = found.indexOf(delimiter)
      cell = next < 0 ? found : found.slice(0, next)
      at += cell.length
    }
    cells.push(cell)
    if (text[at] === delimiter) at++
    else return text[at] === '\n' || text.startsWith('\r\n', at) ? cells : undefined
  }
}
