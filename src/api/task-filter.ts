import { type Static, Type } from '@sinclair/typebox'
import type { Place, TaskFilter } from '../store/tasks/read/filter.ts'
import { parseTime } from '../submit/parse-time.ts'
import { checkJsonText } from '../task/json/text.ts'
import { LIMITS } from '../task/limits.ts'
import { ORIGINS, STATUSES, type Status } from '../task/status.ts'
import { cursorOf, placeOf, uuidIn } from './page.ts'
import { refuse } from './validation.ts'

/** The fields of a filter that a query and a body write in the same way. */
export const FilterFields = {
  queue: Type.Optional(Type.String({ maxLength: 128, description: 'Only of this queue', examples: ['emails'] })),
  type: Type.Optional(Type.String({ maxLength: LIMITS.typeLength, description: 'Only of this type' })),
  parentId: Type.Optional(Type.String({ maxLength: 36, description: 'Only children of this task' })),
  origin: Type.Optional(
    Type.Union(
      ORIGINS.map((origin) => Type.Literal(origin)),
      { description: 'Only from there' },
    ),
  ),
  createdAfter: Type.Optional(
    Type.String({
      maxLength: 64,
      description: 'Only created then or later: RFC 3339 with a zone',
      examples: ['2026-01-01T00:00:00Z'],
    }),
  ),
}
const Fields = Type.Object(FilterFields)

/** The checked fields as a filter; `path` is where they stand. */
export function filterOf(fields: Static<typeof Fields>, path: string): TaskFilter {
  const { queue, type, origin } = fields
  const filter: TaskFilter = { queue, type, origin }
  if (fields.parentId !== undefined) {
    filter.parentId = uuidIn(fields.parentId) ?? refuse(`${path}/parentId`, 'must be a UUID')
  }
  if (fields.createdAfter !== undefined) {
    const ms = parseTime(fields.createdAfter) ?? refuse(`${path}/createdAfter`, 'must be an RFC 3339 time with a zone')
    filter.createdAfter = new Date(Math.max(0, ms)).toISOString()
  }
  return filter
}

/** Statuses in one parameter, separated by commas. */
export function statusesOf(list: string, path: string): Status[] {
  const words = list.split(',').map((word) => word.trim())
  const wrong = words.find((word) => !(STATUSES as readonly string[]).includes(word))
  if (wrong !== undefined) refuse(path, `must be of ${STATUSES.join(', ')}, separated by commas`)
  return [...new Set(words)] as Status[]
}

/** JSON text that payloads shall contain. */
export function containedOf(text: string, path: string): string {
  const json = checkJsonText(text)
  if (json.ok) return text
  return refuse(
    path,
    json.code === 'malformed-json' ? `must be JSON, such as {"invoice":1042}: ${json.reason}` : json.reason,
  )
}

export function nextOf(place: Place | undefined): string | null {
  return place ? cursorOf([place.createdAt, place.id]) : null
}

const PLACE_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/

export function placeAfter(after: string | undefined): Place | undefined {
  if (after === undefined) return undefined
  const [createdAt, id] = placeOf(after, ['string', 'string'], ([time, uuid]) => {
    const ms = PLACE_TIME.test(String(time)) ? parseTime(String(time)) : undefined
    return ms !== undefined && ms > 0 && uuidIn(String(uuid)) !== undefined
  })
  return { createdAt, id }
}
