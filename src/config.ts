import { existsSync, readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { parseDotenv } from './runtime/dotenv.ts'
import { formatDuration, parseDuration } from './runtime/duration.ts'
import { type EgressRules, parseEgressRules } from './runtime/egress-rules.ts'
import { LOG_LEVELS, type LogLevel, Secret } from './runtime/log.ts'
import type { TracingSettings } from './runtime/tracing.ts'

export const ROLES = ['api', 'dispatcher', 'scheduler', 'worker'] as const
export type Role = (typeof ROLES)[number]

/** One setting: how it is called, what it means, and how its text is read. */
interface Variable<T> {
  name: string
  description: string
  /** What may be given, as the end of "must be ...". */
  allowed: string
  /** The default as a reader sees it. */
  shown: string
  default: () => T
  /** Undefined when the text is not allowed. */
  parse: (text: string) => T | undefined
  /** Its value may not appear in a message. */
  secret?: true
}

/** Keeps the type of each variable's value. */
const variable = <T>(definition: Variable<T>): Variable<T> => definition

const MAX_SHUTDOWN_MS = 3_600_000
const HOST_NAME = /^(?=.{1,253}$)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$/i

/** Every setting, by its key in Config, in the order in which `.env.example` shows them. */
export const VARIABLES = {
  databaseUrl: variable<Secret | undefined>({
    name: 'DATABASE_URL',
    description:
      'The Postgres server (15 or later) to use. Without it Longshore runs a Postgres of its own under DATA_DIR.',
    allowed: 'a URL such as postgres://user:password@host:5432/database',
    shown: 'none',
    default: () => undefined,
    parse: (text) =>
      ['postgres:', 'postgresql:'].includes(URL.parse(text)?.protocol ?? '') ? new Secret(text) : undefined,
    secret: true,
  }),
  dataDir: variable<string>({
    name: 'DATA_DIR',
    description: 'The folder for what is kept on disk: the embedded Postgres and the generated admin key.',
    allowed: 'a path',
    shown: './data',
    default: () => resolve('data'),
    parse: parsePath,
  }),
  host: variable<string>({
    name: 'HOST',
    description: 'The address to listen on. 127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere.',
    allowed: 'an IP address or a host name, without a scheme or a port',
    shown: '127.0.0.1',
    default: () => '127.0.0.1',
    parse: (text) => (isIP(text) !== 0 || HOST_NAME.test(text) ? text : undefined),
  }),
  port: variable<number>({
    name: 'PORT',
    description: 'The port to listen on; 0 takes a free one.',
    allowed: 'a whole number from 0 to 65535',
    shown: '8080',
    default: () => 8080,
    parse: (text) => parseInteger(text, 0, 65_535),
  }),
  roles: variable<readonly Role[]>({
    name: 'LONGSHORE_ROLES',
    description: 'What this node does.',
    allowed: `one or more of ${ROLES.join(', ')}, separated by commas`,
    shown: ROLES.join(','),
    default: () => ROLES,
    parse: (text) => {
      const given = parseList(text)
      const known = ROLES.filter((role) => given.includes(role))
      return given.length > 0 && given.every((role) => known.includes(role as Role)) ? known : undefined
    },
  }),
  workerThreads: variable<number>({
    name: 'WORKER_THREADS',
    description: 'How many threads run targets.',
    allowed: 'a whole number from 1 to 256',
    shown: 'the number of cores',
    default: () => availableParallelism(),
    parse: (text) => parseInteger(text, 1, 256),
  }),
  adminKey: variable<Secret | undefined>({
    name: 'LONGSHORE_ADMIN_KEY',
    description:
      'The first key, with every right. Without it one is generated at the first start, into DATA_DIR/admin.key.',
    allowed: '24 to 256 visible ASCII characters',
    shown: 'generated',
    default: () => undefined,
    parse: (text) => (/^[\x21-\x7e]{24,256}$/.test(text) ? new Secret(text) : undefined),
    secret: true,
  }),
  handlersDir: variable<string>({
    name: 'HANDLERS_DIR',
    description: 'The folder with your own functions, for targets of type handler.',
    allowed: 'a path',
    shown: './handlers',
    default: () => resolve('handlers'),
    parse: parsePath,
  }),
  logLevel: variable<LogLevel>({
    name: 'LOG_LEVEL',
    description: 'The least severity that is logged.',
    allowed: `one of ${LOG_LEVELS.join(', ')}`,
    shown: 'info',
    default: () => 'info',
    parse: (text) => LOG_LEVELS.find((level) => level === text),
  }),
  shutdownTimeoutMs: variable<number>({
    name: 'SHUTDOWN_TIMEOUT',
    description: 'How long a stopping node lets running tasks finish before it gives them back.',
    allowed: `a duration up to ${formatDuration(MAX_SHUTDOWN_MS)}, such as 500ms, 25s or 2m`,
    shown: '25s',
    default: () => 25_000,
    parse: (text) => {
      const ms = parseDuration(text)
      return ms !== undefined && ms <= MAX_SHUTDOWN_MS ? ms : undefined
    },
  }),
  targetAllow: variable<string | undefined>({
    name: 'TARGET_ALLOW',
    description:
      'Which loopback and private addresses targets may reach, beside public ones. Not set: all of them while HOST is loopback, else none. Empty: none.',
    allowed: 'host names, *.example.com, IP addresses and networks such as 10.0.0.0/8, separated by commas',
    shown: 'not set',
    default: () => undefined,
    parse: (text) => text,
  }),
  apiUrl: variable<string | undefined>({
    name: 'LONGSHORE_URL',
    description: 'Where the command line finds the API.',
    allowed: 'an http or https URL without a user and parameters, such as https://longshore.example.com',
    shown: 'http://127.0.0.1:8080, or what HOST and PORT say',
    default: () => undefined,
    parse: (text) => (/^https?:\/\/[^?#@]+$/.test(text) && URL.canParse(text) ? text : undefined),
  }),
  apiKey: variable<Secret | undefined>({
    name: 'LONGSHORE_KEY',
    description:
      'The key of the command line. Without it the one in DATA_DIR/admin.key is taken, if the API is on this machine.',
    allowed: 'visible ASCII characters',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (/^[\x21-\x7e]{1,512}$/.test(text) ? new Secret(text) : undefined),
    secret: true,
  }),
  otlpEndpoint: variable<string | undefined>({
    name: 'OTEL_EXPORTER_OTLP_ENDPOINT',
    description: 'Where trace spans are sent by OTLP/HTTP in JSON (/v1/traces is added). Without it none are made.',
    allowed: 'an http or https URL such as http://localhost:4318',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (['http:', 'https:'].includes(URL.parse(text)?.protocol ?? '') ? text : undefined),
  }),
  otlpHeaders: variable<Secret | undefined>({
    name: 'OTEL_EXPORTER_OTLP_HEADERS',
    description: 'Headers for the collector of trace spans, such as its key.',
    allowed: 'name=value pairs, percent-encoded, separated by commas',
    shown: 'none',
    default: () => undefined,
    parse: (text) =>
      text.split(',').every((pair) => /^\s*[\w-]+=[^\r\n]*$/.test(pair)) ? new Secret(text) : undefined,
    secret: true,
  }),
  serviceName: variable<string>({
    name: 'OTEL_SERVICE_NAME',
    description: 'What this service is called in traces.',
    allowed: 'a name of up to 128 characters',
    shown: 'longshore',
    default: () => 'longshore',
    parse: (text) => (text.length <= 128 ? text : undefined),
  }),
  traceRatio: variable<number>({
    name: 'OTEL_TRACES_SAMPLER_ARG',
    description: 'The share of traces begun here that is recorded; traces that a caller began go by the caller.',
    allowed: 'a number from 0 to 1',
    shown: '1',
    default: () => 1,
    parse: (text) => (/^(0|1|[01]\.0+|0?\.\d{1,6})$/.test(text) ? Number(text) : undefined),
  }),
  migrate: variable<boolean>({
    name: 'MIGRATE',
    description: 'Whether the node brings the database to its schema at start.',
    allowed: 'on or off',
    shown: 'on',
    default: () => true,
    parse: (text) => (text === 'on' || text === 'off' ? text === 'on' : undefined),
  }),
}

type Values = { [Key in keyof typeof VARIABLES]: ReturnType<(typeof VARIABLES)[Key]['default']> }

/** The settings of this process, complete and frozen. */
export type Config = Readonly<
  Omit<Values, 'targetAllow' | 'otlpEndpoint' | 'otlpHeaders' | 'serviceName' | 'traceRatio'> & {
    /** What TARGET_ALLOW and HOST make of the addresses that targets may reach. */
    egress: EgressRules
    /** Where trace spans go; undefined when nowhere. */
    tracing: TracingSettings | undefined
    /** Only this machine can reach the API. */
    hostIsLoopback: boolean
  }
>

/** Settings of later versions: refused, because ignoring them would promise what does not happen. */
const NOT_YET = [
  ...['AMQP_URL', 'RABBITMQ_MANAGEMENT_URL', 'FTP_REGISTRY_URL', 'COMPAT_AUTH', 'COMPAT_ROUTES'],
  ...['LONGSHORE_SECRET_KEY'],
]

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
    for (const [name, raw] of Object.entries(source)) {
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
    if (NOT_YET.includes(name)) mistakes.push({ name, message: `${name} is not supported by this version yet` })
    else if (name.startsWith('LONGSHORE_') && !NAMES.includes(name)) mistakes.push({ name, message: unknown(name) })
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
  const hostIsLoopback = isLoopback(values.host)
  const egress = parseEgressRules(targetAllow, hostIsLoopback)
  for (const message of egress.mistakes) mistakes.push({ name: VARIABLES.targetAllow.name, message })
  if (mistakes.length > 0) throw new ConfigError(mistakes)
  for (const part of [values.roles, egress.rules, egress.rules.allow, tracing]) Object.freeze(part)
  return Object.freeze({ ...values, egress: egress.rules, tracing, hostIsLoopback })
}

/** The configuration of this process: its environment and the `.env` in its working directory. */
export function loadProcessConfig(overrides?: Readonly<Record<string, string | undefined>>): Config {
  return loadConfig(process.env, existsSync('.env') ? readFileSync('.env', 'utf8') : '', overrides)
}

const NAMES: readonly string[] = Object.values<Variable<unknown>>(VARIABLES).map(({ name }) => name)

function unknown(name: string): string {
  const [nearest, distance] = [...NAMES, ...NOT_YET]
    .map((known) => [known, editDistance(name, known)] as const)
    .reduce((best, next) => (next[1] < best[1] ? next : best))
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

function parseInteger(text: string, min: number, max: number): number | undefined {
  const value = /^\d{1,9}$/.test(text) ? Number(text) : undefined
  return value !== undefined && value >= min && value <= max ? value : undefined
}

function parseList(text: string): string[] {
  return text.split(',').flatMap((entry) => entry.trim() || [])
}

function parsePath(text: string): string | undefined {
  return text.includes('\0') ? undefined : resolve(text)
}

function isLoopback(host: string | undefined): boolean {
  return host === 'localhost' || host === '::1' || (isIP(host ?? '') === 4 && host?.startsWith('127.') === true)
}
