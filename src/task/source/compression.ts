import { type Static, Type } from '@sinclair/typebox'

/** Bounds of decompression, for a source that says nothing else. Sizes in bytes. */
export const COMPRESSION_DEFAULTS = {
  maxBytes: 16 * 1024 ** 3,
  maxRatio: 200,
  maxEntries: 1_000,
} as const

export const CompressionSchema = Type.Object(
  {
    kind: Type.Optional(
      Type.Union(
        ['auto', 'none', 'gzip', 'zip'].map((kind) => Type.Literal(kind)),
        { default: 'auto', description: 'auto: by the extensions .gz and .zip' },
      ),
    ),
    entries: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 256,
        description: 'Glob of the files to read in a zip archive; without it there must be exactly one',
        examples: ['**/*.csv'],
      }),
    ),
    maxBytes: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: Number.MAX_SAFE_INTEGER,
        default: COMPRESSION_DEFAULTS.maxBytes,
        description: 'Decompressed size, in bytes, of all that is read from one file',
      }),
    ),
    maxRatio: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 1_100,
        default: COMPRESSION_DEFAULTS.maxRatio,
        description: 'Decompressed to compressed size; beyond it, and beyond 64 MiB, the file is refused as a bomb',
      }),
    ),
    maxEntries: Type.Optional(
      Type.Integer({
        minimum: 1,
        maximum: 100_000,
        default: COMPRESSION_DEFAULTS.maxEntries,
        description: 'Entries of a zip archive, whether they are read or not',
      }),
    ),
  },
  {
    additionalProperties: false,
    description: 'How files are decompressed, and what is refused',
    examples: [{ entries: '**/*.csv' }],
  },
)
export type Compression = Static<typeof CompressionSchema>

/** How a file of this name is compressed. */
export function compressionKind(name: string, { kind = 'auto' }: Compression = {}): 'none' | 'gzip' | 'zip' {
  if (kind === 'none' || kind === 'gzip' || kind === 'zip') return kind
  const lower = name.toLowerCase()
  return lower.endsWith('.gz') ? 'gzip' : lower.endsWith('.zip') ? 'zip' : 'none'
}
