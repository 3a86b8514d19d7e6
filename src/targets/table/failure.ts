import { messageOf } from '../../runtime/errors.ts'

/** What pg tells of a refusal. */
interface PostgresError {
  code?: unknown
  detail?: unknown
  column?: unknown
}

/** https://www.postgresql.org/docs/current/errcodes-appendix.html */
export function stateOf(error: unknown): string {
  const { code } = (error ?? {}) as PostgresError
  return typeof code === 'string' ? code : ''
}

/**
 * The refusal is about what a row holds, and the same row would be refused again: a value of the wrong type or size (class 22),
 * a constraint (23), a value for a generated column, a view's check, a trigger's `raise`, a value too large for an index (54).
 */
export function isRowFault(error: unknown): boolean {
  return /^(22|23|54)...$|^(428C9|42804|44000|P000[1-4])$/.test(stateOf(error))
}

/** The table lacks a column that the row fills: so it is for all rows of this shape. */
export function isShapeFault(error: unknown): boolean {
  return stateOf(error) === '42703'
}

/** A table, schema or function is not there (any more). */
export function isMissing(error: unknown): boolean {
  return /^(42P01|3F000)$/.test(stateOf(error))
}

const SOCKET_CODES = /^(ECONNRESET|ECONNABORTED|EPIPE|ETIMEDOUT|ERR_SOCKET_CLOSED|ERR_STREAM_.*)$/

/**
 * The same again may well go through at once: a deadlock was resolved, or the connection was cut, with the statement
 * committed or not. The ids of applied tasks make a second time harmless.
 */
export function isWorthAnotherTry(error: unknown): boolean {
  const code = stateOf(error)
  if (/^(40P01|40001|57P0[123]|08...)$/.test(code) || SOCKET_CODES.test(code)) return true
  return /^(Connection terminated|Client has encountered a connection error)/.test(messageOf(error))
}

/** Postgres's words in one line, with the column and what it adds. */
export function refusal(error: unknown, column?: string): string {
  const { detail, column: named } = (error ?? {}) as PostgresError
  const where = column !== undefined && typeof named !== 'string' ? `column "${column}": ` : ''
  return `${where}${messageOf(error)}${typeof detail === 'string' ? ` (${detail})` : ''}`
}
