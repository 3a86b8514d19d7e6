import type { JsonFault } from '../../task/json/text.ts'

/** Why a record's text cannot be kept, as a sentence. */
export function faultInWords(fault: JsonFault): string {
  if (fault.code === 'malformed-json') return `Is not JSON: ${fault.reason} (character ${fault.offset + 1})`
  const { path, reason } = fault
  return path === '' ? `The record ${reason}` : `${path}: ${reason}`
}
