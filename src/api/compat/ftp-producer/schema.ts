import { Type } from '@sinclair/typebox'
import { CONTENT_TYPES } from '../../../task/source/source.ts'

const ContentType = Type.Union(CONTENT_TYPES.map((type) => Type.Literal(type)))
const Id = Type.Integer({ description: "A whole number: that of the last 12 hex digits of the source's id" })

const FIELDS = {
  host: Type.String({ minLength: 1, maxLength: 253 }),
  port: Type.Union([Type.Integer(), Type.String({ pattern: '^[0-9]{1,5}$', description: 'A port' })], {
    description: 'From 1 to 65535',
  }),
  username: Type.String({ maxLength: 256 }),
  password: Type.String({ maxLength: 1024, description: 'Never shown again' }),
  directory: Type.String({ maxLength: 1024 }),
  content_type: ContentType,
}

/** The body of a change: what is left out stays. A connection may be sent back as it was read. */
export const ChangeBody = Type.Partial(
  Type.Object({ ...FIELDS, id: Type.Integer({ description: 'If given, the one in the path' }) }),
  { additionalProperties: false },
)

/** The body of a new connection. */
export const ConnectionBody = Type.Object(
  {
    ...FIELDS,
    port: Type.Optional(FIELDS.port),
    username: Type.Optional(FIELDS.username),
    password: Type.Optional(FIELDS.password),
    directory: Type.Optional(FIELDS.directory),
  },
  { additionalProperties: false },
)

export const Connection = Type.Object({
  id: Id,
  host: Type.String(),
  port: Type.Integer(),
  username: Type.String(),
  directory: Type.String(),
  content_type: ContentType,
})

export const Done = Type.Object({ message: Type.String(), ftp_connection: Id })
export const NotFound = Type.Object({ error: Type.String() })

export const CONNECTION_EXAMPLE = {
  id: 123_456_789_012,
  host: 'files.example.com',
  port: 21,
  username: 'reports',
  directory: '/outgoing',
  content_type: 'csv' as const,
}

export const BODY_EXAMPLE = {
  host: 'files.example.com',
  port: 21,
  username: 'reports',
  password: 'secret',
  directory: '/outgoing',
  content_type: 'csv',
}

export const ERRORS_EXAMPLE = { errors: { content_type: ['must be "csv" or "json" or "xml"'] } }
export const NOT_FOUND = { error: 'FTP connection not found' }
