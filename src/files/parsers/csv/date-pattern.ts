/** Letters that a pattern gives a meaning, and what they match. Longer ones first. */
const FIELDS = [
  ['yyyy', '(?<year>\\d{4})'],
  ['MM', '(?<month>\\d{2})'],
  ['dd', '(?<day>\\d{2})'],
  ['HH', '(?<hour>\\d{2})'],
  ['mm', '(?<minute>\\d{2})'],
  ['ss', '(?<second>\\d{2})'],
  ['SSS', '(?<fraction>\\d{1,9})'],
  ['XXX', '(?<zone>Z|[+-]\\d{2}:?\\d{2})'],
  ['M', '(?<month>\\d{1,2})'],
  ['d', '(?<day>\\d{1,2})'],
  ['H', '(?<hour>\\d{1,2})'],
] as const

type Parts = Partial<Record<'year' | 'month' | 'day' | 'hour' | 'minute' | 'second' | 'fraction' | 'zone', string>>

/** Reads a date and gives it as ISO 8601 writes it; undefined when the text does not match, or is no day of the calendar. */
export type DateReader = (text: string) => string | undefined

/**
 * Makes the reader of a pattern: `dd.MM.yyyy`, `yyyy-MM-dd'T'HH:mm:ssXXX`. Without a zone in the pattern there is none in
 * the result. A pattern that is none gives what is wrong with it.
 */
export function dateReader(pattern: string): DateReader | { reason: string } {
  let source = ''
  const seen = new Set<string>()
  for (let at = 0; at < pattern.length; ) {
    const field = FIELDS.find(([letters]) => pattern.startsWith(letters, at))
    if (field) {
      const name = /<(\w+)>/.exec(field[1])?.[1] ?? ''
      if (seen.has(name)) return { reason: `names the ${name} twice` }
      seen.add(name)
      source += field[1]
      at += field[0].length
      continue
    }
    const literal = /^'([^']*)'|^[^a-zA-Z']/.exec(pattern.slice(at))
    if (!literal)
      return {
        reason: `does not know "${pattern.slice(at, at + 4)}": put letters that stand for themselves in single quotes`,
      }
    source += escapeRegExp(literal[1] ?? literal[0])
    at += literal[0].length
  }
  for (const needed of ['year', 'month', 'day']) if (!seen.has(needed)) return { reason: `does not name the ${needed}` }
  if (seen.has('hour') !== seen.has('minute')) return { reason: 'needs hour and minute together' }
  for (const finer of ['second', 'fraction', 'zone']) {
    if (seen.has(finer) && !seen.has('minute')) return { reason: `names the ${finer} without hour and minute` }
  }
  const expression = new RegExp(`^${source}$`)
  return (text) => {
    const parts = expression.exec(text)?.groups as Parts | undefined
    return parts && isoText(parts)
  }
}

function isoText({ year = '', month = '', day = '', hour, minute, second, fraction, zone }: Parts): string | undefined {
  if (!isDay(Number(year), Number(month), Number(day))) return undefined
  const date = `${year}-${month.padStart(2, '0')}-${day.padStart(2, '0')}`
  if (hour === undefined) return date
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second ?? 0) > 59) return undefined
  const offset = zone && zone !== 'Z' ? `${zone.slice(0, 3)}:${zone.slice(-2)}` : (zone ?? '')
  if (offset !== '' && offset !== 'Z' && (Number(offset.slice(1, 3)) > 18 || Number(offset.slice(4)) > 59))
    return undefined
  const time = `${hour.padStart(2, '0')}:${minute}:${second ?? '00'}${fraction === undefined ? '' : `.${fraction}`}`
  return `${date}T${time}${offset}`
}

function isDay(year: number, month: number, day: number): boolean {
  if (year < 1 || month < 1 || month > 12 || day < 1) return false
  const isLeap = (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0
  const days = month === 2 ? (isLeap ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31
  return day <= days
}

function escapeRegExp(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/-]/g, '\\$&')
}
