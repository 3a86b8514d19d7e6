const LINE = /^(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/
const QUOTED = /^(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:#.*)?$/
const ESCAPES: Record<string, string> = { n: '\n', r: '\r', t: '\t' }

/** The variables of a `.env` file, and its lines (from 1) that cannot be read. */
export interface Dotenv {
  variables: Record<string, string>
  unreadable: number[]
}

/**
 * Reads lines of `NAME=value`: `export` and space around both are ignored, ` #` starts a comment, quotes keep what they
 * enclose (double ones with \n, \r, \t, \" and \\). A value stays on its line; the last one of a name counts.
 * Not `node:util`'s parseEnv: that one skips what it cannot read without a word.
 */
export function parseDotenv(text: string): Dotenv {
  const variables: Record<string, string> = Object.create(null)
  const unreadable: number[] = []
  for (const [index, raw] of text
    .replace(/^\uFEFF/, '')
    .split(/\r?\n/)
    .entries()) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    const [, name, rest = ''] = LINE.exec(line) ?? []
    const value = name === undefined ? undefined : parseValue(rest)
    if (name === undefined || value === undefined) unreadable.push(index + 1)
    else variables[name] = value
  }
  return { variables, unreadable }
}

function parseValue(text: string): string | undefined {
  if (!/^["']/.test(text)) return text.replace(/(^|\s)#.*$/, '').trim()
  const quoted = QUOTED.exec(text)
  if (!quoted) return undefined
  return quoted[2] ?? (quoted[1] ?? '').replace(/\\(.)/g, (_, char: string) => ESCAPES[char] ?? char)
}
