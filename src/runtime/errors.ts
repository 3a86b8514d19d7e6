/** Every error code that a client can meet, with its HTTP status and title (RFC 9457). */
export const PROBLEMS = {
  'malformed-json': [400, 'The body is not valid JSON'],
  'bad-request': [400, 'The request cannot be read'],
  unauthenticated: [401, 'A valid key is required'],
  forbidden: [403, 'The key lacks the scope'],
  'foreign-node': [403, 'The node belongs to another key'],
  'not-found': [404, 'Not found'],
  'method-not-allowed': [405, 'Method not allowed'],
  conflict: [409, 'Conflict with the present state'],
  'idempotency-mismatch': [409, 'The idempotency key belongs to another body'],
  'illegal-transition': [409, 'The task cannot make this change'],
  'parent-final': [409, 'The parent takes no more children'],
  'other-broker': [409, 'The worker has another broker'],
  'unknown-node': [409, 'Nobody joined under this id'],
  'queue-not-empty': [409, 'The queue still has live tasks'],
  'secret-key-missing': [409, 'There is no key to encrypt credentials with'],
  'too-large': [413, 'Too large'],
  'unsupported-media-type': [415, 'Unsupported media type'],
  validation: [422, 'The request is not valid'],
  'unknown-queue': [422, 'Unknown queue'],
  'unknown-exchange': [422, 'Unknown exchange'],
  unroutable: [422, 'No queue is bound for this routing key'],
  'unknown-target': [422, 'Unknown or unusable target'],
  'unknown-handler': [422, 'Unknown handler'],
  'unknown-parent': [422, 'Unknown parent task'],
  unstorable: [422, 'The ledger cannot hold this'],
  internal: [500, 'Internal error'],
  'file-server': [502, 'The file server did not do what was asked'],
  'database-unavailable': [503, 'The database cannot be reached'],
  'broker-unavailable': [503, 'The broker cannot be reached'],
  'storage-full': [503, 'The database has no space left'],
  unknown: [503, 'The result is not known'],
  overloaded: [503, 'Too much waits already'],
  'shutting-down': [503, 'The node is shutting down'],
} as const satisfies Record<string, readonly [number, string]>

export type ProblemCode = keyof typeof PROBLEMS

/** One field that failed validation; `path` is a JSON Pointer (RFC 6901). */
export interface FieldError {
  path: string
  message: string
}

/** An expected failure that a caller is told about; `detail` says what happened and what to do. */
export class Problem extends Error {
  override readonly name = 'Problem'

  constructor(
    readonly code: ProblemCode,
    readonly detail: string,
    readonly errors: readonly FieldError[] = [],
    options?: ErrorOptions,
  ) {
    super(detail, options)
  }

  get status(): number {
    return PROBLEMS[this.code][0]
  }

  get title(): string {
    return PROBLEMS[this.code][1]
  }
}

/** A problem with one field, by default that its value is not valid; an empty path is the whole body. */
export function invalid(path: string, message: string, code: ProblemCode = 'validation'): Problem {
  return new Problem(code, `${path || 'The body'}: ${message}`, [{ path, message }])
}

/** What is thrown can be anything; this is its message in one line. */
export function messageOf(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown)
}
