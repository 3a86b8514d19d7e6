import { appendFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

// usage: RECORD_CHECKOUT=<checkout> RECORD_TO=<file> bun --preload statement-recorder.ts ...
// Appends the text of every statement that the process sends, one JSON string a line.
const { RECORD_CHECKOUT: checkout, RECORD_TO: file } = process.env
if (!checkout || !file) throw new Error('RECORD_CHECKOUT and RECORD_TO are needed')

const { Client } = createRequire(join(checkout, 'package.json'))('pg') as typeof import('pg')
const query = Client.prototype.query as (...args: unknown[]) => unknown
const seen = new Set<string>()

Client.prototype.query = function (this: unknown, ...args: unknown[]) {
  const [config] = args
  const text = typeof config === 'string' ? config : String((config as { text?: unknown } | undefined)?.text ?? '')
  if (!seen.has(text)) {
    seen.add(text)
    appendFileSync(file, `${JSON.stringify(text)}\n`)
  }
  return query.apply(this, args)
} as typeof Client.prototype.query
