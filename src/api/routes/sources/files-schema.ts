import { Type } from '@sinclair/typebox'
import { FILE_STATUSES } from '../../../task/source/source.ts'
import { Count, Nullable, OneOf, Time } from '../../openapi/schema-words.ts'
import { PageQuery } from '../../page.ts'
import { SOURCE_ID } from './schema.ts'

export const FILE_ID = { ...SOURCE_ID, file: Type.String({ format: 'uuid', description: "The file's id" }) }

export const FileSchema = Type.Object(
  {
    id: Type.String({ format: 'uuid' }),
    sourceId: Type.String({ format: 'uuid' }),
    source: Type.String({ description: 'Its name' }),
    path: Type.String(),
    generation: Count('Which version of this path it is, from 1'),
    status: OneOf(
      FILE_STATUSES,
      'seen: not known to be complete. ready: to be fetched. importing: its task has it. done: all is read, and its records are tasks',
    ),
    size: Nullable(Count('In bytes')),
    modified: Nullable(Type.String({ description: 'As the server told it' })),
    sha256: Nullable(Type.String({ description: 'Of what was fetched' })),
    paused: Type.Boolean(),
    taskId: Nullable(
      Type.String({ format: 'uuid', description: 'Its import: the parent of the tasks of its records' }),
    ),
    progress: Type.Object({
      bytesRead: Count('Of the file as it was fetched'),
      recordsRead: Count('Those that were rejected included'),
      recordsRejected: Count('Kept aside, with their reasons'),
      bytesPerSecond: Nullable(Count('Of the last attempt at it; null while it is paused')),
      recordsPerSecond: Nullable(Count('Of the last attempt at it; null while it is paused')),
      remaining: Nullable(Type.String({ description: 'A duration, at that rate; null when it is not being read' })),
    }),
    tasks: Type.Object(
      {
        total: Count('Made so far'),
        succeeded: Count('Delivered'),
        dead: Count('Failed for good, or cancelled'),
        live: Count('Not final'),
      },
      { description: 'The tasks of its records: GET /tasks?parentId=<taskId>' },
    ),
    after: Nullable(
      Type.Object(
        {
          state: Type.String({ description: 'pending, done, or moot: there is nothing to do it with' }),
          error: Nullable(Type.String()),
          location: Nullable(Type.String({ description: 'Where it was moved to' })),
        },
        { description: 'What is done with the remote file after the import' },
      ),
    ),
    duplicateOf: Nullable(Type.String({ format: 'uuid', description: 'An earlier file with the same content' })),
    failures: Count('Tries to fetch it that failed'),
    error: Nullable(Type.String()),
    seenAt: Time('When it was seen first'),
    fetchedAt: Nullable(Time('When it was fetched')),
    importedAt: Nullable(Time('When its last record was committed')),
    finishedAt: Nullable(Time('When all tasks of its records were final')),
  },
  { description: 'One version of a remote file' },
)

export const FilesQuery = Type.Object(
  {
    ...PageQuery,
    status: Type.Optional(OneOf(FILE_STATUSES, 'Only in this status')),
    path: Type.Optional(Type.String({ maxLength: 4096, description: 'Only versions of this path' })),
  },
  { additionalProperties: false },
)

export const RejectsQuery = Type.Object(
  {
    ...PageQuery,
    format: Type.Optional(
      Type.Union([Type.Literal('json'), Type.Literal('csv')], {
        description: 'csv: all of them, as a file; also by `Accept: text/csv`',
      }),
    ),
  },
  { additionalProperties: false },
)

export const RerunBody = Type.Object(
  {
    only: Type.Optional(
      Type.Literal('failed', {
        description:
          'Only the tasks of its records that are dead or cancelled, and what its import did not read; without it the whole file is fetched and imported once more',
      }),
    ),
  },
  { additionalProperties: false },
)
