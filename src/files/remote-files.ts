/** A file server and how to log in to it. */
export interface RemoteConnection {
  protocol: 'ftp' | 'ftps' | 'ftps-implicit' | 'sftp'
  /** A name or an address; an IPv6 address without brackets. */
  host: string
  port: number
  auth: RemoteAuth
  tls: {
    /** The certificate must be issued by an authority that is trusted here, for this host, and be in date. */
    verify: boolean
    /** Authorities to trust instead of the system's, in PEM. */
    ca?: string
    minVersion: 'TLSv1.2' | 'TLSv1.3'
    /** SHA-256 of the one certificate to accept, in hex with or without colons; nothing else about it is then checked. */
    fingerprint?: string
  }
  /** The host key to accept, as `SHA256:...`. Without it any is accepted and told in `identity`. */
  hostKey?: string
  /** Where FTP's data connections go: to the host of the control connection whatever the server says, or where it says. */
  passiveHost: 'control' | 'announced'
}

export type RemoteAuth =
  | { kind: 'password'; username: string; password: string }
  | { kind: 'key'; username: string; privateKey: string; passphrase?: string }

export interface RemoteLimits {
  /** From dialling to being logged in, in milliseconds. */
  connectTimeoutMs: number
  /** How long the server may be silent while it is waited for, in milliseconds. */
  idleTimeoutMs: number
}

export const DEFAULT_LIMITS: RemoteLimits = { connectTimeoutMs: 20_000, idleTimeoutMs: 60_000 }

/** Entries of one listing, when the caller gives no limit. */
export const MAX_ENTRIES = 250_000

/**
 * A connection to a file server, logged in. It does one thing at a time: a call (a listing or a read until its end) while
 * another is under way is a bug and throws. Expected failures are RemoteFailures. After one with reason `timeout` or `closed`,
 * and after an abort of FTP's data, the connection is gone: close it and open another.
 *
 * A path is absolute, or relative to the directory that the login leads to; an empty one is that directory. Names that could
 * mean something else to a server than one name (`..`, separators, control characters) are refused before they are sent.
 */
export interface RemoteFiles {
  /** Who answered. */
  readonly identity: RemoteIdentity
  /**
   * What is in a directory, without `.` and `..`, in the server's order, streamed. Links are told and not followed.
   * Fails with reason `limit` rather than leave something out; breaking off the loop is cheap.
   */
  list(directory: string, options?: ListOptions): AsyncGenerator<RemoteEntry, void, undefined>
  /** One file or directory as it is now, to the second; undefined when there is none. Links are followed. */
  stat(path: string, options?: { signal?: AbortSignal }): Promise<RemoteFile | undefined>
  /**
   * A file's bytes from `offset` on, no faster than they are taken; each chunk is to be used up before the next is taken. Ends normally only when the server has said that it sent
   * all; whether that is the size that was listed is the caller's to check.
   */
  read(path: string, options?: { offset?: number; signal?: AbortSignal }): AsyncGenerator<Uint8Array, void, undefined>
  /** Renames a file; fails with reason `exists` when something is at `to`, as far as the server can tell. */
  move(from: string, to: string): Promise<void>
  /** Deletes a file. */
  remove(path: string): Promise<void>
  /** Makes a directory and those above it; does nothing when it is there. */
  makeDirectory(path: string): Promise<void>
  /** Says goodbye and closes, whatever is under way. Never fails. */
  close(): Promise<void>
}

export interface ListOptions {
  /** Directories below, too. */
  recursive?: boolean
  /** Fails when there are more entries than that, in all directories together; `MAX_ENTRIES` by default. */
  limit?: number
  /**
   * For servers whose listings tell times to the minute or the day: files for which this is true are asked about one by one,
   * and come after the rest of their directory.
   */
  exactTimes?: (file: RemoteFile) => boolean
  signal?: AbortSignal
}

export interface RemoteFile {
  kind: 'file' | 'directory' | 'link' | 'other'
  /** The listed directory's path as the caller gave it, and the name; good for every other call. */
  path: string
  /** In bytes, null when the server does not say. */
  size: number | null
  /** RFC 3339 in UTC, to the precision that the server gives; null when it does not tell at least the second. */
  modifiedAt: string | null
  /**
   * The server's own text for the time. One without a year changes with the calendar: compare listings with each other, never
   * with a clock.
   */
  rawModifiedAt: string | null
}

/** Something that is there and cannot be used, for the caller to show. */
export interface RefusedEntry {
  kind: 'refused'
  /** The directory that holds it. */
  directory: string
  /** Its name, or the whole line, written so that it can be shown: escaped and shortened. */
  name: string
  /** A sentence's end: "its name ...". */
  reason: string
}

export type RemoteEntry = RemoteFile | RefusedEntry

/** What can be pinned, and what is worth showing. */
export interface RemoteIdentity {
  /** FTP's welcome, or the name of the SSH software; null when there was none. */
  greeting: string | null
  tls: TlsIdentity | null
  hostKey: { algorithm: string; fingerprint: string } | null
}

export interface TlsIdentity {
  /** Such as `TLSv1.3`. */
  version: string
  /** SHA-256 of the certificate, pairs of hex digits between colons. */
  fingerprint: string
  subject: string
  issuer: string
  /** RFC 3339. */
  validTo: string
}

/** The layer that failed, outermost first. */
export const REMOTE_LAYERS = [
  'resolve',
  'connect',
  'tls',
  'hostkey',
  'login',
  'directory',
  'list',
  'read',
  'write',
] as const
export type RemoteLayer = (typeof REMOTE_LAYERS)[number]

/**
 * Why: the server was silent too long; the connection was cut; it is not a connection that may be made (SSRF); who answered is
 * not who is trusted; there is no such thing; we may not; something is there already; it is more than was allowed for; the
 * answer cannot be understood; or the server refused for another reason.
 */
export type RemoteReason =
  | 'timeout'
  | 'closed'
  | 'forbidden'
  | 'untrusted'
  | 'not-found'
  | 'denied'
  | 'exists'
  | 'limit'
  | 'protocol'
  | 'refused'

/** What a server, or the way to it, did not let us do. The message is a sentence to act on, and never holds a password. */
export class RemoteFailure extends Error {
  override readonly name = 'RemoteFailure'

  constructor(
    readonly layer: RemoteLayer,
    readonly reason: RemoteReason,
    message: string,
    /** Who answered, as far as it got. */
    readonly identity: RemoteIdentity = { greeting: null, tls: null, hostKey: null },
  ) {
    super(message)
  }
}
