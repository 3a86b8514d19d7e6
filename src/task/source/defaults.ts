import { parseDuration } from '../../runtime/duration.ts'
import type { Compression } from './compression.ts'
import type { FormatChoice } from './file-format.ts'
import { DEFAULT_PORTS, type SourceSettings, TEMPORARY_NAMES } from './source.ts'

type Given<Key extends keyof SourceSettings> = NonNullable<SourceSettings[Key]>

/** A source's settings with every default in its place. */
export interface CompleteSource {
  protocol: SourceSettings['protocol']
  host: string
  port: number
  tls: { verify: boolean; ca: string | undefined; minVersion: 'TLSv1.2' | 'TLSv1.3'; fingerprint: string | undefined }
  hostKey: string | undefined
  passiveHost: Given<'passiveHost'>
  directory: string
  include: string[]
  exclude: string[]
  recursive: boolean
  format: FormatChoice
  compression: Compression
  cron: string | undefined
  timezone: string
  mode: Given<'mode'>
  ready: { kind: 'stable'; listings: number; forMs: number } | { kind: 'marker'; suffix: string } | { kind: 'at-once' }
  after: Given<'after'>
  failed: Given<'failed'>
  duplicates: Given<'duplicates'>
  deliver: { queue: string; recordsPerTask: number; type: string | null; priority: number } | undefined
  rejects: { mode: 'skip' | 'fail'; max: number }
  limits: {
    filesPerPoll: number
    fileBytes: number
    records: number | undefined
    entries: number
    connectTimeoutMs: number
    idleTimeoutMs: number
  }
  connections: number
}

const MOST_REJECTS = 100_000
/** An upload may stand still for a moment. */
const STILL_MS = 10_000
const DAY_MS = 86_400_000

export function completeSource(given: SourceSettings): CompleteSource {
  const { tls = {}, limits = {}, rejects = {}, deliver } = given
  return {
    protocol: given.protocol,
    host: given.host,
    port: given.port ?? DEFAULT_PORTS[given.protocol],
    tls: {
      verify: tls.verify ?? true,
      ca: tls.ca,
      minVersion: tls.minVersion ?? 'TLSv1.2',
      fingerprint: tls.fingerprint,
    },
    hostKey: given.hostKey,
    passiveHost: given.passiveHost ?? 'control',
    directory: given.directory ?? '',
    include: given.include ?? ['**'],
    exclude: given.exclude ?? TEMPORARY_NAMES,
    recursive: given.recursive ?? false,
    format: given.format ?? { type: 'by-extension' },
    compression: given.compression ?? {},
    cron: given.cron,
    timezone: given.timezone ?? 'UTC',
    mode: given.mode ?? 'import',
    ready: completeReady(given.ready),
    after: given.after ?? { kind: 'none' },
    failed: given.failed ?? { kind: 'none' },
    duplicates: given.duplicates ?? 'flag',
    deliver: deliver && {
      queue: deliver.queue,
      recordsPerTask: deliver.recordsPerTask ?? 1,
      type: deliver.type ?? null,
      priority: deliver.priority ?? 0,
    },
    rejects: { mode: rejects.mode ?? 'skip', max: rejects.max ?? MOST_REJECTS },
    limits: {
      filesPerPoll: limits.filesPerPoll ?? 100,
      fileBytes: limits.fileBytes ?? 10 * 1024 ** 3,
      records: limits.records,
      entries: limits.entries ?? 250_000,
      connectTimeoutMs: durationMs(limits.connectTimeout, 20_000),
      idleTimeoutMs: durationMs(limits.idleTimeout, 60_000),
    },
    connections: given.connections ?? 1,
  }
}

function completeReady(ready: SourceSettings['ready']): CompleteSource['ready'] {
  switch (ready?.kind) {
    case undefined:
      return { kind: 'stable', listings: 2, forMs: STILL_MS }
    case 'stable':
      return { kind: 'stable', listings: ready.listings ?? 2, forMs: Math.min(durationMs(ready.for, STILL_MS), DAY_MS) }
    case 'marker':
      return { kind: 'marker', suffix: ready.suffix ?? '.done' }
    case 'at-once':
      return ready
  }
}

function durationMs(text: string | undefined, byDefault: number): number {
  return (text === undefined ? undefined : parseDuration(text)) ?? byDefault
}
