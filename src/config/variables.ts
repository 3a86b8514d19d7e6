import { isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { parseAmqpUrls } from '../runtime/amqp-url.ts'
import { parseCron } from '../runtime/cron.ts'
import { formatDuration, parseDuration } from '../runtime/duration.ts'
import { LOG_LEVELS, type LogLevel, Secret } from '../runtime/log.ts'
import { readSecretKeys } from '../runtime/secret-box.ts'

export const ROLES = ['api', 'dispatcher', 'scheduler', 'worker'] as const
export type Role = (typeof ROLES)[number]

/** One setting: how it is called, what it means, and how its text is read. */
export interface Variable<T> {
  name: string
  /** Names that older systems had for it; the first one counts where several are given. */
  aliases?: readonly string[]
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
const QUEUE_NAME = /^[A-Za-z0-9._:-]{1,128}$/
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
  amqpUrl: variable<Secret | undefined>({
    name: 'AMQP_URL',
    description:
      'The RabbitMQ (3.10 or later) to use; several of one cluster, separated by commas, are tried in turn. Without it the broker is inside the process.',
    allowed: 'one or more URLs such as amqp://user:password@host:5672/vhost or amqps://..., all with the same vhost',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (parseAmqpUrls(text) ? new Secret(text) : undefined),
    secret: true,
  }),
  amqpCaFile: variable<string | undefined>({
    name: 'AMQP_CA_FILE',
    description: 'The certificates (PEM) that an amqps server is checked against, in place of the public ones.',
    allowed: 'a path',
    shown: 'none',
    default: () => undefined,
    parse: parsePath,
  }),
  rabbitmqManagementUrl: variable<Secret | undefined>({
    name: 'RABBITMQ_MANAGEMENT_URL',
    description:
      "RabbitMQ's management API, to show every connection of the broker and not only those of Longshore. Its user needs the tag monitoring or administrator.",
    allowed: 'a URL such as http://user:password@host:15672',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (['http:', 'https:'].includes(URL.parse(text)?.protocol ?? '') ? new Secret(text) : undefined),
    secret: true,
  }),
  tableDatabaseUrl: variable<Secret | undefined>({
    name: 'TABLE_DATABASE_URL',
    description:
      'The Postgres that targets of type table write to. Without it they write to the schema "data" of the database that Longshore uses.',
    allowed: 'a URL such as postgres://user:password@host:5432/database',
    shown: 'none',
    default: () => undefined,
    parse: (text) =>
      ['postgres:', 'postgresql:'].includes(URL.parse(text)?.protocol ?? '') ? new Secret(text) : undefined,
    secret: true,
  }),
  dataDir: variable<string>({
    name: 'DATA_DIR',
    description:
      'The folder for what is kept on disk: the embedded Postgres, the generated keys, fetched files until they are imported (`spool`), and what csv targets write (`out`).',
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
    description:
      'The port to listen on; 0 takes a free one. `longshore worker` listens, with its health only, where it is set.',
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
  workerQueues: variable<readonly string[] | undefined>({
    name: 'WORKER_QUEUES',
    description: '`longshore worker` takes tasks of these queues only. Without it of every queue that has consumers.',
    allowed: 'names of queues, separated by commas',
    shown: 'all',
    default: () => undefined,
    parse: (text) => {
      const names = parseList(text)
      return names.length > 0 && names.every((name) => QUEUE_NAME.test(name)) ? names : undefined
    },
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
  secretKeys: variable<Secret | undefined>({
    name: 'LONGSHORE_SECRET_KEY',
    description:
      'Encrypts the stored credentials of sources. The first key encrypts, all of them decrypt, so a key can be replaced. Without it, and without DATABASE_URL, one is generated into DATA_DIR/secret.key.',
    allowed: 'one or more keys of 32 bytes in hex or base64 (openssl rand -base64 32), separated by commas',
    shown: 'generated while the database is embedded, else none',
    default: () => undefined,
    parse: (text) => (readSecretKeys(text) ? new Secret(text) : undefined),
    secret: true,
  }),
  registryUrl: variable<Secret | undefined>({
    name: 'FTP_REGISTRY_URL',
    aliases: ['DJANGO_HOST'],
    description:
      'Where a list of FTP connections is fetched that are kept as sources; /ftp/api/list/ is added when it has no path.',
    allowed: 'an http or https URL such as https://registry.example.com',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (['http:', 'https:'].includes(URL.parse(text)?.protocol ?? '') ? new Secret(text) : undefined),
    secret: true,
  }),
  registryCron: variable<string>({
    name: 'FTP_REGISTRY_CRON',
    description: 'When the list of FTP_REGISTRY_URL is fetched, in UTC.',
    allowed: 'a cron expression such as */5 * * * *',
    shown: '* * * * * (every minute)',
    default: () => '* * * * *',
    parse: (text) => (parseCron(text, 'UTC').ok ? text : undefined),
  }),
  spoolLimit: variable<number>({
    name: 'SPOOL_LIMIT',
    description:
      'Files that are fetched and not imported yet may take so much room under DATA_DIR; then fetching waits. A gigabyte of the disk is left free in any case.',
    allowed: 'a size such as 500MB or 20GB',
    shown: '20GB',
    default: () => 20_000_000_000,
    parse: parseSize,
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
    description: 'Where the command line and `longshore worker` find the API.',
    allowed: 'an http or https URL without a user and parameters, such as https://longshore.example.com',
    shown: 'http://127.0.0.1:8080, or what HOST and PORT say',
    default: () => undefined,
    parse: (text) => (/^https?:\/\/[^?#@]+$/.test(text) && URL.canParse(text) ? text : undefined),
  }),
  apiKey: variable<Secret | undefined>({
    name: 'LONGSHORE_KEY',
    description:
      'The key of the command line, and of `longshore worker` (with the scope work). Without it the one in DATA_DIR/admin.key is taken, if the API is on this machine.',
    allowed: 'visible ASCII characters',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (/^[\x21-\x7e]{1,512}$/.test(text) ? new Secret(text) : undefined),
    secret: true,
  }),
  compatRoutes: variable<boolean>({
    name: 'COMPAT_ROUTES',
    description: 'Whether the routes of the older systems are served.',
    allowed: 'on or off',
    shown: 'on',
    default: () => true,
    parse: parseSwitch,
  }),
  compatAuth: variable<'key' | 'none'>({
    name: 'COMPAT_AUTH',
    description: 'Whether the routes of the older systems need a key; none only while HOST is loopback.',
    allowed: 'key or none',
    shown: 'key',
    default: () => 'key',
    parse: (text) => (text === 'key' || text === 'none' ? text : undefined),
  }),
  processOrderUrl: variable<string | undefined>({
    name: 'PROCESS_ORDER_URL',
    aliases: ['EPINTOWER_API_PROCESS_ORDER'],
    description: 'Where consumers made by POST /createConsumer deliver their orders, as a form.',
    allowed: 'an http or https URL',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (['http:', 'https:'].includes(URL.parse(text)?.protocol ?? '') ? text : undefined),
  }),
  processOrderSecret: variable<Secret | undefined>({
    name: 'SECRET_KEY',
    description: 'The field secret_key of the orders that go to PROCESS_ORDER_URL.',
    allowed: 'up to 4096 characters',
    shown: 'none',
    default: () => undefined,
    parse: (text) => (text.length <= 4096 ? new Secret(text) : undefined),
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
    parse: parseSwitch,
  }),
}

/** What the table makes of the given texts. */
export type Values = { [Key in keyof typeof VARIABLES]: ReturnType<(typeof VARIABLES)[Key]['default']> }

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

const UNITS = { MB: 1_000_000, GB: 1_000_000_000, TB: 1_000_000_000_000 }

/** In bytes. */
function parseSize(text: string): number | undefined {
  const [, count, unit] = /^([1-9]\d{0,5})(MB|GB|TB)$/.exec(text) ?? []
  return count === undefined ? undefined : Number(count) * UNITS[unit as keyof typeof UNITS]
}

function parseSwitch(text: string): boolean | undefined {
  return text === 'on' || text === 'off' ? text === 'on' : undefined
}
