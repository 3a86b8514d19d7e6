/** Why the embedded Postgres does not start. */
export type RefusalReason =
  | 'locked'
  | 'unsupported-platform'
  | 'other-major'
  | 'unwritable'
  | 'no-space'
  | 'no-user'
  | 'failed'

/** The embedded Postgres cannot be used; the message says why and what to do. */
export class EmbeddedPostgresRefusal extends Error {
  override readonly name = 'EmbeddedPostgresRefusal'

  constructor(
    readonly reason: RefusalReason,
    message: string,
    options?: ErrorOptions,
  ) {
    super(message, options)
  }
}

/** What Postgres's programs write when the disk is full: the system's message, or their own about half a write. */
export const DISK_FULL =
  /No space left on device|Disk quota exceeded|wrote only \d+ of \d+ bytes|Check free disk space/i
