import { RemoteFailure } from '../files/remote-files.ts'
import { messageOf } from '../runtime/errors.ts'
import { SecretUnreadable } from '../runtime/secret-box.ts'
import type { PollFailure } from '../task/source/state.ts'
import { SecretMissing, StrangerAnswered } from './connection.ts'
import { SpoolFailure } from './spool.ts'

/** Which layer failed, and why, as it is shown. */
export function pollFailure(error: unknown): PollFailure {
  const message = messageOf(error)
  if (error instanceof RemoteFailure) return { layer: error.layer, reason: error.reason, message }
  if (error instanceof StrangerAnswered) return { layer: 'identity', reason: 'untrusted', message }
  if (error instanceof SecretMissing) return { layer: 'secret', reason: 'missing', message }
  if (error instanceof SecretUnreadable) return { layer: 'secret', reason: 'unreadable', message }
  if (error instanceof SpoolFailure) return { layer: 'spool', reason: 'disk', message }
  return { layer: 'ledger', reason: 'refused', message }
}

/** The connection to the file server is of no use any more. */
export function endsConnection(error: unknown): boolean {
  return error instanceof RemoteFailure && ['timeout', 'closed', 'protocol'].includes(error.reason)
}
