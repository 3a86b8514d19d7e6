import { parseDuration } from '../runtime/duration.ts'
import { invalid, type Problem, type ProblemCode } from '../runtime/errors.ts'
import { csvPathRefusal, readTableName, type TableRules } from '../task/target/names.ts'
import { isOwnMessageHeader, isReservedHeader } from '../task/target/reserved-headers.ts'
import { signingKey } from '../task/target/signing-key.ts'
import type { ConsumerTarget, CsvTarget, HttpTarget, NoopTarget } from '../task/target/target.ts'

/** What is asked about a target beyond its shape. */
export interface TargetChecks {
  /** The names of the handlers that this node has. */
  handlerNames(): readonly string[]
  /** Why requests may not go to this URL; undefined when they may. */
  checkUrl(url: string): string | undefined
  /** Which tables may be written; without it the target itself finds out. */
  tables?: TableRules | undefined
}

/** Throws a Problem, with the place in the body, for a target that could never be delivered to. */
export function checkTarget(target: ConsumerTarget, checks: TargetChecks): void {
  switch (target.type) {
    case 'handler': {
      const names = checks.handlerNames()
      if (names.includes(target.name)) return
      const known = names.length === 0 ? 'HANDLERS_DIR has none' : `known are: ${names.join(', ')}`
      throw refused('name', `names no handler: there is no "${target.name}"; ${known}`, 'unknown-handler')
    }
    case 'http':
      checkHttp(target, checks)
      return
    case 'table': {
      const name = checks.tables && readTableName(target.table, checks.tables)
      if (name && 'reason' in name) throw refused('table', name.reason, 'unknown-target')
      return
    }
    case 'csv':
      checkCsv(target)
      return
    case 'noop':
      checkNoop(target)
      return
    case 'publish': {
      const own = Object.keys(target.headers ?? {}).find(isOwnMessageHeader)
      if (own !== undefined) throw refused(`headers/${own}`, 'is set by Longshore; leave it out')
      return
    }
    case 'import':
    case 'task':
      return
    default:
      target satisfies never
  }
}

function checkNoop({ delay }: NoopTarget): void {
  if (typeof delay !== 'object') return
  if ((parseDuration(delay.max) ?? 0) < (parseDuration(delay.min) ?? 0))
    throw refused('delay/max', 'must be as long as "min" at least')
}

function checkHttp(target: HttpTarget, { checkUrl }: TargetChecks): void {
  const { url, headers, format, secret } = target
  const reason = checkUrl(url)
  if (reason !== undefined) throw refused('url', `cannot be delivered to: ${reason}`, 'unknown-target')
  const reserved = Object.keys(headers ?? {}).find(isReservedHeader)
  if (reserved !== undefined) throw refused(`headers/${reserved}`, 'is set by Longshore; leave it out')
  const ofForms = (['fields', 'rename', 'together'] as const).find((field) => target[field] !== undefined)
  if (ofForms && format !== 'form') throw refused(ofForms, 'only go with "format": "form"')
  if ([secret ?? []].flat().some((one) => !signingKey(one))) throw refused('secret', 'must be base64 after "whsec_"')
}

function checkCsv({ path, columns, header }: CsvTarget): void {
  const refusal = csvPathRefusal(path)
  if (refusal !== undefined) throw refused('path', refusal)
  if (header === false && !columns) throw refused('columns', 'are needed without a header')
  const names = columns?.map((column) => (typeof column === 'string' ? column : column.name)) ?? []
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw refused('columns', `name "${twice}" twice`)
}

function refused(field: string, message: string, code?: ProblemCode): Problem {
  return invalid(`/target/${field}`, message, code)
}
