import { existsSync, readFileSync } from 'node:fs'
import { VARIABLES, type Values, type Variable } from './config/variables.ts'
import { parseDotenv } from './runtime/dotenv.ts'
import { isLoopbackHost } from './runtime/egress/ip-class.ts'
import { type EgressRules, parseEgressRules } from './runtime/egress/rules.ts'
import type { TracingSettings } from './runtime/telemetry/tracing.ts'

/** The settings of this process, complete and frozen. */
export type Config = Readonly<
  Omit<Values, 'targetAllow' | 'otlpEndpoint' | 'otlpHeaders' | 'serviceName' | 'traceRatio'> & {
    /** What TARGET_ALLOW and HOST make of the addresses that targets may reach. */
    egress: EgressRules
    /** Where trace spans go; undefined when nowhere. */
    tracing: TracingSettings | undefined
    /** Somebody chose the port. */
    portIsGiven: boolean
  }
>

/** One setting that cannot be used; `message` names it, what was given and what is allowed. */
export interface Mistake {
  name: string
  message: string
}

/** Everything that is wrong with the configuration, at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'

  constructor(readonly mistakes: readonly Mistake[]) {
    super(`The configuration cannot be used:\n${mistakes.map(({ message }) => `- ${message}`).join('\n')}`)
  }
}

/**
 * Reads the configuration from `overrides` (flags, by variable name), then `env`, then a `.env` file's text, then defaults.
 * An empty value counts as not given (but for TARGET_ALLOW), an empty override withdraws the others. Throws one ConfigError that lists every mistake.
 */
export function loadConfig(
  env: Readonly<Record<string, string | undefined>>,
  dotenvText = '',
  overrides: Readonly<Record<string, string | undefined>> = {},
): Config {
  const dotenv = parseDotenv(dotenvText)
  const given = new Map<string, string>()
  for (const source of [dotenv.variables, env, overrides]) {
    for (const [writtenAs, raw] of Object.entries(source)) {
      const name = ALIASES.get(writtenAs) ?? writtenAs
      if (name !== writtenAs && source[name]?.trim()) continue
      const text = raw?.trim()
      if (text || (text === '' && name === VARIABLES.targetAllow.name)) given.set(name, text)
      else if (text === '' && source === overrides) given.delete(name)
    }
  }
  const mistakes: Mistake[] = dotenv.unreadable.map((line) => ({
    name: '.env',
    message: `.env, line ${line}: cannot be read; write NAME=value, and close quotes on the same line`,
  }))
  for (const name of given.keys()) {
    if (name.startsWith('LONGSHORE_') && !NAMES.includes(name)) mistakes.push({ name, message: unknown(name) })
  }
  const read: Record<string, unknown> = {}
  for (const [key, { name, allowed, parse, secret, default: byDefault }] of Object.entries<Variable<unknown>>(
    VARIABLES,
  )) {
    const text = given.get(name)
    read[key] = text === undefined ? byDefault() : parse(text)
    if (text !== undefined && read[key] === undefined) {
      const was = secret ? '' : ` (given: ${JSON.stringify(text)})`
      mistakes.push({ name, message: `${name} must be ${allowed}${was}` })
    }
  }
  const { targetAllow, otlpEndpoint, otlpHeaders, serviceName, traceRatio, ...values } = read as Values
  const tracing: TracingSettings | undefined = otlpEndpoint
    ? { endpoint: otlpEndpoint, headers: otlpHeaders, serviceName, ratio: traceRatio }
    : undefined
  // Undefined where it is one of the mistakes.
  const hostIsLoopback = isLoopbackHost(values.host ?? '')
  const egress = parseEgressRules(targetAllow, hostIsLoopback)
  for (const message of egress.mistakes) mistakes.push({ name: VARIABLES.targetAllow.name, message })
  if (values.compatAuth === 'none' && !hostIsLoopback) {
    const message = 'COMPAT_AUTH=none works only while HOST is loopback: everybody who reaches it could submit'
    mistakes.push({ name: VARIABLES.compatAuth.name, message })
  }
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  for (const part of [values.roles, egress.rules, egress.rules.allow, tracing]) Object.freeze(part)
  return Object.freeze({
    ...values,
    egress: egress.rules,
    tracing,
    portIsGiven: given.has(VARIABLES.port.name),
  })
}

/** The configuration of this process: its environment and the `.env` in its working directory. */
export function loadProcessConfig(overrides?: Readonly<Record<string, string | undefined>>): Config {
  return loadConfig(process.env, existsSync('.env') ? readFileSync('.env', 'utf8') : '', overrides)
}

/** An older name, and the setting that it stands for. */
const ALIASES = new Map(
  Object.values<Variable<unknown>>(VARIABLES).flatMap(({ name, aliases = [] }) =>
    aliases.map((alias) => [alias, name]),
  ),
)

const NAMES: readonly string[] = Object.values<Variable<unknown>>(VARIABLES).map(({ name }) => name)

function unknown(name: string): string {
  const [nearest, distance] = NAMES.map((known) => [known, editDistance(name, known)] as const).reduce((best, next) =>
    next[1] < best[1] ? next : best,
  )
  return `${name} is unknown${distance <= 4 ? `; did you mean ${nearest}?` : ''}`
}

/** How many characters must be inserted, deleted or replaced to make `b` of `a` (Levenshtein). */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (const [i, char] of [...a].entries()) {
    const next = [i + 1]
    for (let j = 0; j < b.length; j++) {
      const replaced = (row[j] ?? 0) + (char === b[j] ? 0 : 1)
      next.push(Math.min(replaced, (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1))
    }
    row = next
  }
  return row.at(-1) ?? 0
}
