import type { FileStatus, ShownAuth, SourceSettings } from './source.ts'

/** Who a file server is: its key, or its certificate. */
export interface ServerIdentity {
  hostKey: { algorithm: string; fingerprint: string } | null
  certificate: { fingerprint: string; subject: string; issuer: string; validTo: string } | null
  /** When it was seen first; RFC 3339. */
  at: string
}

/** Why a source is not polled until somebody has looked. */
export interface SourceAlert {
  kind: 'identity'
  message: string
  /** Who answered instead of the one who is expected. */
  found: ServerIdentity
}

/** Which part of a poll failed, and why. The message holds no credentials. */
export interface PollFailure {
  /** A RemoteLayer, or `secret`, `spool`, `ledger`. */
  layer: string
  reason: string
  message: string
}

/** What a poll came to. Durations in milliseconds, sizes in bytes. */
export interface PollReport {
  /** RFC 3339. */
  startedAt: string
  tookMs: number
  /** Entries of the listing, and those of them that are files to be taken. */
  entries: number
  files: number
  /** Files that were not known, and known ones that have changed. */
  new: number
  changed: number
  /** Files that are not known to be complete, and complete ones that are left for the next poll. */
  incomplete: number
  left: number
  fetched: number
  bytes: number
  /** Entries whose names are not used, and directories that may not be listed. */
  refused: { count: number; first: { name: string; reason: string }[] }
  /** Files that could not be fetched. */
  failed: { count: number; first: (PollFailure & { path: string })[] }
  /** Why there was no listing, or not all of one. */
  error: PollFailure | null
  /** The message that was published, in mode announce. */
  announced?: string | undefined
}

/** A source as it is shown: without its credentials. Times are RFC 3339, UTC, milliseconds. */
export interface Source {
  id: string
  name: string
  settings: SourceSettings
  auth: ShownAuth | null
  paused: boolean
  /** `registry`: kept in step with a list; null: by hand. */
  managedBy: string | null
  externalId: string | null
  /** Since when the list does not name it any more; it is not polled then. */
  goneAt: string | null
  pinned: ServerIdentity | null
  alert: SourceAlert | null
  /** Null: only when asked. */
  nextPollAt: string | null
  polledAt: string | null
  poll: PollReport | null
  createdAt: string
  updatedAt: string
}

/** What is to be done with a remote file after its import: `pending` is tried again; `moot`: there is nothing to do it with. */
export type AfterState = 'pending' | 'done' | 'moot'

/** Tasks of a file's records. */
export interface RecordTasks {
  total: number
  succeeded: number
  dead: number
}

/** One version of a remote file. */
export interface SourceFile {
  id: string
  sourceId: string
  source: string
  path: string
  generation: number
  status: FileStatus
  /** In bytes; null when the server does not tell. */
  size: number | null
  modified: string | null
  sha256: string | null
  paused: boolean
  /** Its import. */
  taskId: string | null
  bytesRead: number
  recordsRead: number
  recordsRejected: number
  tasks: RecordTasks
  after: AfterState | null
  afterError: string | null
  /** Where it was moved to. */
  location: string | null
  duplicateOf: string | null
  /** Tries to fetch it that failed. */
  failures: number
  error: string | null
  seenAt: string
  fetchedAt: string | null
  importedAt: string | null
  finishedAt: string | null
}

/** A record that was refused. */
export interface Reject {
  /** From 1 within the file. */
  number: number
  line: number
  reason: string
  /** As it stands in the file, at most 4 KiB. */
  raw: string
}
