import { elementSpans, memberSpans, type Span } from './text.ts'

/** The parts of a JSON Pointer (RFC 6901), unescaped. */
export function pointerParts(pointer: string): string[] {
  if (pointer === '') return []
  return pointer
    .slice(1)
    .split('/')
    .map((part) => part.replaceAll('~1', '/').replaceAll('~0', '~'))
}

/**
 * The text of the value at `parts`, as it was received: numbers keep their digits. Undefined when nothing is there, or
 * when a name on the way stands in its object twice. The text has passed `checkJsonText`.
 */
export function valueAt(text: string, parts: readonly string[]): string | undefined {
  let span: Span | undefined
  for (const part of parts) {
    span = childSpan(text, span, part)
    if (!span) return undefined
  }
  return span ? text.slice(...span) : text.trim()
}

function childSpan(text: string, span: Span | undefined, part: string): Span | undefined {
  const object = memberSpans(text, span)
  if (object) return object.ok ? object.members.get(part) : undefined
  if (!/^(0|[1-9]\d{0,8})$/.test(part)) return undefined
  return elementSpans(text, span)?.[Number(part)]
}
