import { type Static, Type } from '@sinclair/typebox'
import { DURATION_PATTERN } from '../../runtime/duration.ts'
import { LIMITS, PRIORITIES } from '../limits.ts'
import { QueueNameSchema } from '../topology/queue.ts'
import { CompressionSchema } from './compression.ts'
import { FormatChoiceSchema } from './file-format.ts'

/*
 * A source in full: a file server that is polled, what is taken from it, how its files are read and where their records
 * go. What is less safe than the default is a field that shows it.
 */

export const PROTOCOLS = ['ftp', 'ftps', 'ftps-implicit', 'sftp'] as const
export type Protocol = (typeof PROTOCOLS)[number]

export const DEFAULT_PORTS: Record<Protocol, number> = { ftp: 21, ftps: 21, 'ftps-implicit': 990, sftp: 22 }

const strict = { additionalProperties: false } as const
const Text = (maxLength: number, description: string, ...examples: string[]) =>
  Type.String({ minLength: 1, maxLength, description, ...(examples.length > 0 && { examples }) })

/** Credentials go in and never come out. */
export const SourceAuthSchema = Type.Union(
  [
    Type.Object(
      {
        kind: Type.Literal('password'),
        username: Text(256, 'User name', 'reports'),
        password: Type.String({ maxLength: 1024, description: 'Never shown again' }),
      },
      { ...strict, title: 'password' },
    ),
    Type.Object(
      {
        kind: Type.Literal('key'),
        username: Text(256, 'User name', 'reports'),
        privateKey: Text(32_768, 'A private key in OpenSSH or PEM form; never shown again'),
        passphrase: Type.Optional(Type.String({ maxLength: 1024, description: 'Of the key; never shown again' })),
      },
      { ...strict, title: 'key', description: 'SFTP only' },
    ),
  ],
  { description: 'How to log in; stored encrypted' },
)
export type SourceAuth = Static<typeof SourceAuthSchema>

/**
 * What is shown of it. Its password or key is `given` by somebody here, `listed` by the list that the source comes from, or
 * `missing`: then it cannot log in until somebody gives it.
 */
export interface ShownAuth extends Pick<SourceAuth, 'kind' | 'username'> {
  secret: 'given' | 'listed' | 'missing'
}
export const shownAuth = ({ kind, username }: SourceAuth, secret: 'given' | 'listed' = 'given'): ShownAuth => ({
  kind,
  username,
  secret,
})

export const SourceTlsSchema = Type.Object(
  {
    verify: Type.Optional(
      Type.Boolean({
        default: true,
        description:
          'false: authorities, host name and dates do not count, which is not safe; the certificate of the first test or poll is kept and expected',
      }),
    ),
    ca: Type.Optional(Text(65_536, 'Authorities to trust instead of the public ones, PEM')),
    minVersion: Type.Optional(Type.Union([Type.Literal('TLSv1.2'), Type.Literal('TLSv1.3')], { default: 'TLSv1.2' })),
    fingerprint: Type.Optional(Text(95, 'SHA-256 of the one certificate that is taken, whoever issued it')),
  },
  strict,
)

const Glob = Text(
  256,
  'A glob: without a slash on the name, else on the path below the directory; ** goes across directories',
  '*.csv',
)

export const ReadySchema = Type.Union(
  [
    Type.Object(
      {
        kind: Type.Literal('stable'),
        listings: Type.Optional(Type.Integer({ minimum: 2, maximum: 10, default: 2 })),
        for: Type.Optional(
          Type.String({
            pattern: DURATION_PATTERN,
            default: '10s',
            description: 'The first and the last of these listings are so far apart at least, up to a day',
          }),
        ),
      },
      {
        ...strict,
        title: 'stable',
        description:
          'Complete when so many listings in a row, over such a time, tell the same size and time. The source is listed again for it, whatever its cron says',
      },
    ),
    Type.Object(
      {
        kind: Type.Literal('marker'),
        suffix: Type.Optional(
          Type.String({
            pattern: '^[^/\\\\\\x00-\\x1f]{1,64}$',
            default: '.done',
            description: 'Complete when a file of its name and this exists beside it; moved and deleted with it',
          }),
        ),
      },
      {
        ...strict,
        title: 'marker',
        description:
          'A file that changes while its old marker stays is complete when two listings in a row tell the same',
      },
    ),
    Type.Object(
      { kind: Type.Literal('at-once') },
      { ...strict, title: 'at-once', description: 'Complete when it is seen' },
    ),
  ],
  { default: { kind: 'stable', listings: 2 }, description: 'When a file counts as complete' },
)

const Folder = Text(1024, 'A directory on the server, absolute or below the polled one; it is made', 'done')
export const AfterSchema = Type.Union(
  [
    Type.Object({ kind: Type.Literal('none') }, { ...strict, title: 'none' }),
    Type.Object({ kind: Type.Literal('move'), to: Folder }, { ...strict, title: 'move' }),
    Type.Object({ kind: Type.Literal('delete') }, { ...strict, title: 'delete' }),
  ],
  { default: { kind: 'none' }, description: 'What is done with the remote file when its last record is committed' },
)

export const DeliverySchema = Type.Object(
  {
    queue: { ...QueueNameSchema, description: 'Where the records go' },
    recordsPerTask: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 1_000,
        default: 1,
        description: '1: a task is the record; more: its payload is an array of so many records',
      }),
    ),
    type: Type.Optional(Text(LIMITS.typeLength, 'The type of these tasks', 'transaction')),
    priority: Type.Optional(Type.Integer({ minimum: 0, maximum: PRIORITIES - 1, default: 0 })),
  },
  { ...strict, description: 'Where the records go; needed in mode import' },
)

export const RejectsSchema = Type.Object(
  {
    mode: Type.Optional(
      Type.Union([Type.Literal('skip'), Type.Literal('fail')], {
        default: 'skip',
        description: 'skip: a bad record is kept aside with its reason; fail: the first one fails the file',
      }),
    ),
    max: Type.Optional(
      Type.Integer({ minimum: 0, description: 'More bad records than this fail the file; 100,000 by default' }),
    ),
  },
  strict,
)

export const SourceLimitsSchema = Type.Object(
  {
    filesPerPoll: Type.Optional(Type.Integer({ minimum: 1, maximum: 10_000, default: 100 })),
    fileBytes: Type.Optional(
      Type.Integer({ minimum: 1, default: 10 * 1024 ** 3, description: 'A larger file is refused' }),
    ),
    records: Type.Optional(Type.Integer({ minimum: 1, description: 'A file with more fails; no limit by default' })),
    entries: Type.Optional(
      Type.Integer({ minimum: 1, maximum: 1_000_000, default: 250_000, description: 'Of one listing' }),
    ),
    connectTimeout: Type.Optional(Type.String({ pattern: DURATION_PATTERN, default: '20s' })),
    idleTimeout: Type.Optional(
      Type.String({ pattern: DURATION_PATTERN, default: '60s', description: 'How long the server may be silent' }),
    ),
  },
  strict,
)

/** Names that files have while they are being written. */
export const TEMPORARY_NAMES = ['*.tmp', '*.part', '*.partial', '*.filepart', '*.crdownload', '.*', '~*', '*~']

const SETTINGS = {
  protocol: Type.Union(PROTOCOLS.map((protocol) => Type.Literal(protocol))),
  host: Text(253, 'A host name or an address', 'files.example.com'),
  port: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 65_535, description: '21 (ftp, ftps), 990 (ftps-implicit), 22 (sftp)' }),
  ),
  tls: Type.Optional(SourceTlsSchema),
  hostKey: Type.Optional(
    Type.String({
      pattern: '^SHA256:[A-Za-z0-9+/]{43}=?$',
      description: 'The host key to expect (sftp); without it the one of the first test or poll is kept and expected',
    }),
  ),
  passiveHost: Type.Optional(
    Type.Union([Type.Literal('control'), Type.Literal('announced')], {
      default: 'control',
      description: 'Where data connections of FTP go: to the host itself, or (less safe) where the server says',
    }),
  ),
  directory: Type.Optional(Type.String({ maxLength: 1024, default: '', examples: ['/outgoing'] })),
  include: Type.Optional(Type.Array(Glob, { minItems: 1, maxItems: 50, default: ['**'] })),
  exclude: Type.Optional(
    Type.Array(Glob, {
      maxItems: 50,
      default: TEMPORARY_NAMES,
      description: 'Given, it stands instead of the names of files that are being written',
    }),
  ),
  recursive: Type.Optional(Type.Boolean({ default: false })),
  format: Type.Optional(FormatChoiceSchema),
  compression: Type.Optional(CompressionSchema),
  cron: Type.Optional(
    Text(256, 'When to look: five fields, or six with seconds; without it when asked', '*/5 * * * *'),
  ),
  timezone: Type.Optional(Text(64, 'IANA time zone of cron', 'Europe/Berlin')),
  mode: Type.Optional(
    Type.Union([Type.Literal('import'), Type.Literal('announce')], {
      default: 'import',
      description:
        'import: each new file becomes a task; announce: each poll publishes one message, for others to fetch',
    }),
  ),
  ready: Type.Optional(ReadySchema),
  after: Type.Optional(AfterSchema),
  failed: Type.Optional(
    Type.Union(
      [
        Type.Object({ kind: Type.Literal('none') }, strict),
        Type.Object({ kind: Type.Literal('move'), to: Folder }, strict),
      ],
      {
        default: { kind: 'none' },
        description: 'What is done with a remote file that could not be imported',
      },
    ),
  ),
  duplicates: Type.Optional(
    Type.Union([Type.Literal('flag'), Type.Literal('skip')], {
      default: 'flag',
      description: 'A file with the content of an earlier one under another name: imported and flagged, or skipped',
    }),
  ),
  deliver: Type.Optional(DeliverySchema),
  rejects: Type.Optional(RejectsSchema),
  limits: Type.Optional(SourceLimitsSchema),
  connections: Type.Optional(
    Type.Integer({ minimum: 1, maximum: 8, default: 1, description: 'Files that are fetched at once' }),
  ),
}

/** What a source is, but for its credentials. */
export const SourceSettingsSchema = Type.Object(SETTINGS, strict)
export type SourceSettings = Static<typeof SourceSettingsSchema>

/** The body of POST /sources. */
export const SourceBodySchema = Type.Object(
  {
    name: Type.String({ pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$', examples: ['bank'] }),
    auth: Type.Optional(SourceAuthSchema),
    paused: Type.Optional(Type.Boolean({ default: false })),
    ...SETTINGS,
  },
  { ...strict, description: 'A file server to poll' },
)
export type SourceBody = Static<typeof SourceBodySchema>

/** The body of PATCH /sources/:id: a field that is given replaces what was there, null takes it back to its default. */
export const SourcePatchSchema = Type.Object(
  {
    name: Type.Optional(SourceBodySchema.properties.name),
    auth: Type.Optional(Type.Union([SourceAuthSchema, Type.Null()], { description: 'Left out: as it is' })),
    paused: SourceBodySchema.properties.paused,
    ...Object.fromEntries(
      Object.entries(SETTINGS).map(([key, schema]) => [
        key,
        Type.Optional(key === 'protocol' || key === 'host' ? schema : Type.Union([schema, Type.Null()])),
      ]),
    ),
  },
  strict,
)
export type SourcePatch = { [Key in keyof SourceSettings]?: SourceSettings[Key] | null } & {
  name?: string
  auth?: SourceAuth | null
  paused?: boolean
}

export const SOURCE_EXAMPLE: SourceBody = {
  name: 'bank',
  protocol: 'sftp',
  host: 'files.example.com',
  auth: { kind: 'password', username: 'reports', password: 'secret' },
  directory: '/outgoing',
  include: ['*.csv'],
  format: { type: 'csv', delimiter: ';', types: { amount: 'decimal' } },
  cron: '*/5 * * * *',
  after: { kind: 'move', to: 'done' },
  deliver: { queue: 'transactions', recordsPerTask: 100 },
}

/** The states of a file. `seen`: not known to be complete; `ready`: to be fetched; `importing`: its task has it. */
export const FILE_STATUSES = ['seen', 'ready', 'fetching', 'importing', 'done', 'failed', 'skipped'] as const
export type FileStatus = (typeof FILE_STATUSES)[number]

/** The exchange and queues that import tasks go through, one queue a content type (SEEDS 1). */
export const FTP_EXCHANGE = 'ftp_exchange'
export const CONTENT_TYPES = ['csv', 'json', 'xml'] as const
export type ContentType = (typeof CONTENT_TYPES)[number]
export const importQueue = (type: ContentType): string => `ftp.${type}`
