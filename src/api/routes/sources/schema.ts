import { Type } from '@sinclair/typebox'
import { SourceBodySchema, SourceSettingsSchema } from '../../../task/source/source.ts'
import { Count, Nullable, OneOf, Time } from '../../openapi/schema-words.ts'
import { PageQuery } from '../../page.ts'

export const SOURCE_ID = { id: Type.String({ description: "The source's id, or its name" }) }

const IdentitySchema = Type.Object(
  {
    hostKey: Nullable(Type.Object({ algorithm: Type.String(), fingerprint: Type.String() })),
    certificate: Nullable(
      Type.Object({
        fingerprint: Type.String({ description: 'SHA-256' }),
        subject: Type.String(),
        issuer: Type.String(),
        validTo: Time('Its last day'),
      }),
    ),
    at: Time('When it was seen first'),
  },
  { description: 'Who a server is: its host key, or its certificate' },
)

const FailureSchema = Type.Object(
  {
    layer: Type.String({
      description:
        'resolve, connect, tls, hostkey, login, directory, list, read, write; or identity, secret, spool, parse, ledger',
    }),
    reason: Type.String({ examples: ['timeout', 'denied'] }),
    message: Type.String(),
  },
  { description: 'Which layer failed, and why' },
)

const RefusedSchema = Type.Object({ name: Type.String(), reason: Type.String() })
const RefusedNames = Type.Object(
  { count: Count('How many'), first: Type.Array(RefusedSchema) },
  { description: 'Names that are not used, such as those with a line break, and directories that may not be listed' },
)

const PollSchema = Type.Object(
  {
    startedAt: Time('When it began'),
    tookMs: Count('Milliseconds'),
    entries: Count('Of the listing'),
    files: Count('Of them, those that are to be taken'),
    new: Count('Files that were not known'),
    changed: Count('Known files that have changed'),
    incomplete: Count('Files that are not known to be complete'),
    left: Count('Complete files that are left for the next poll'),
    fetched: Count('Files that were fetched'),
    bytes: Count('That were fetched'),
    refused: RefusedNames,
    failed: Type.Object({
      count: Count('Files that could not be fetched'),
      first: Type.Array(Type.Object({ path: Type.String(), ...FailureSchema.properties })),
    }),
    error: Nullable(FailureSchema),
    announced: Type.Optional(Type.String({ format: 'uuid', description: 'The message, in mode announce' })),
  },
  { description: 'What the last poll came to' },
)

/** A source as responses show it: what was given, without how to log in. */
export const SourceSchema = Type.Object({
  id: Type.String({ format: 'uuid' }),
  name: SourceBodySchema.properties.name,
  ...SourceSettingsSchema.properties,
  auth: Nullable(
    Type.Object({
      kind: Type.String(),
      username: Type.String(),
      secret: OneOf(
        ['given', 'listed', 'missing'],
        'Its password or key, which is never shown. listed: its list tells it; missing: its list does not, and nothing is polled until PATCH `auth` gives it',
      ),
    }),
  ),
  paused: Type.Boolean(),
  status: OneOf(
    ['active', 'paused', 'alert', 'gone'],
    'alert: somebody else answered than before, look at `alert`; gone: its list names it no more',
  ),
  managedBy: Nullable(Type.String({ description: 'registry: kept in step with a list; null: by hand' })),
  externalId: Nullable(Type.String({ description: 'What that list calls it' })),
  goneAt: Nullable(Time('Since when the list does not name it')),
  pinned: Nullable(IdentitySchema),
  alert: Nullable(
    Type.Object(
      { kind: Type.String(), message: Type.String(), found: IdentitySchema },
      {
        description:
          'Why it is not polled until somebody has looked, and what to do: POST .../trust, or PATCH what it states itself',
      },
    ),
  ),
  nextPollAt: Nullable(Time('null: when asked')),
  polledAt: Nullable(Time('When a poll ended last')),
  poll: Nullable(PollSchema),
  createdAt: Time('When it was made'),
  updatedAt: Time('When it was changed last'),
})

const ENTRY = {
  path: Type.String(),
  kind: Type.Union(['file', 'directory', 'link', 'other', 'refused'].map((kind) => Type.Literal(kind))),
  size: Nullable(Count('In bytes')),
  modified: Nullable(Type.String({ description: "RFC 3339, or the server's own text" })),
}

export const RejectSchema = Type.Object({
  number: Count('Of the record within the file, from 1'),
  line: Count('On which it ends'),
  reason: Type.String(),
  raw: Type.String({ description: 'As it stands in the file, at most 4 KiB' }),
})

export const TestSchema = Type.Object({
  ok: Type.Boolean(),
  failure: Nullable(FailureSchema),
  tookMs: Count('Milliseconds'),
  greeting: Nullable(Type.String({ description: 'What the server says of itself' })),
  tlsVersion: Nullable(Type.String()),
  identity: Nullable(IdentitySchema),
  listing: Type.Object({
    looked: Count('Entries that were looked at; a large directory not to its end'),
    files: Type.Array(Type.Object(ENTRY), { description: 'The first that would be taken' }),
  }),
  preview: Nullable(
    Type.Object(
      {
        path: Type.String(),
        contentType: Nullable(Type.String()),
        records: Type.Array(Type.Any()),
        rejects: Type.Array(RejectSchema),
      },
      { description: 'The first records of the first file' },
    ),
  ),
})

export const BrowseSchema = Type.Object({
  path: Type.String(),
  items: Type.Array(
    Type.Object({ ...ENTRY, reason: Nullable(Type.String({ description: 'Why its name is not used' })) }),
  ),
  more: Type.Boolean({ description: 'Only the first 1,000 entries are shown' }),
})

export const SourcesQuery = Type.Object(
  {
    ...PageQuery,
    managedBy: Type.Optional(
      Type.String({ maxLength: 64, description: 'Only those of this list', examples: ['registry'] }),
    ),
  },
  { additionalProperties: false },
)

export const BrowseQuery = Type.Object(
  {
    path: Type.Optional(
      Type.String({ maxLength: 1024, description: 'A directory; the polled one by default', examples: ['/outgoing'] }),
    ),
  },
  { additionalProperties: false },
)

export const TrustBody = Type.Object(
  {
    fingerprint: Type.String({
      minLength: 1,
      maxLength: 128,
      description: 'The one in `alert.found` that you have compared with what the operator of the server says',
    }),
  },
  { additionalProperties: false },
)
