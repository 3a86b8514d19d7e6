const PATTERN =
  /^(\d{4})-(\d{2})-(\d{2})T([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,9}))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/i

/**
 * Reads an RFC 3339 date-time with its zone into milliseconds since 1970; undefined for anything else, days that no month
 * has included. Leap seconds are not taken.
 */
export function parseTime(text: string): number | undefined {
  const match = PATTERN.exec(text)
  if (!match) return undefined
  const [, year, month, day, hours, minutes, seconds, fraction = '', zone = 'Z'] = match
  const date = new Date(0)
  date.setUTCFullYear(Number(year), Number(month) - 1, Number(day))
  if (date.getUTCMonth() !== Number(month) - 1 || date.getUTCDate() !== Number(day)) return undefined
  date.setUTCHours(Number(hours), Number(minutes), Number(seconds), Number(fraction.slice(0, 3).padEnd(3, '0')))
  if (zone.toUpperCase() === 'Z') return date.getTime()
  const offset = (Number(zone.slice(1, 3)) * 60 + Number(zone.slice(4, 6))) * 60_000
  return date.getTime() + (zone.startsWith('-') ? offset : -offset)
}
