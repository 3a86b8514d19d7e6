import type { ProblemCode } from '../src/runtime/errors.ts'
import type { OutcomeKind } from '../src/task/outcome.ts'
import type { Status } from '../src/task/status.ts'
import type { Cause } from '../src/task/waiting-for.ts'

/** What the docs say of each word of the code; the types see to it that none is forgotten. */

export const PROBLEM_WORDS: Record<ProblemCode, string> = {
  'malformed-json': 'Send a body that is valid JSON; `detail` says where it is not.',
  'bad-request': 'The path, the headers or the encoding of the body are broken: mend the client.',
  unauthenticated: 'Send `Authorization: Bearer <key>`, or HTTP Basic with the key as password.',
  forbidden: 'Use a key with the scope that `detail` names.',
  'foreign-node': 'A worker’s id belongs to the key that it joined with: use that key, or join under a new id.',
  'not-found': 'The id or the path is wrong, or retention has deleted it.',
  'method-not-allowed': 'Use a method that the header `Allow` names.',
  conflict: 'Look at what is there now; `detail` says what stands in the way.',
  'idempotency-mismatch': 'The key belongs to a task with another body: use a key of its own for each piece of work.',
  'illegal-transition': 'Read the task: its status or attempt is not the one that the request needs.',
  'parent-final': 'The parent is final, or was fanned out by an exchange: submit without `parentId`.',
  'queue-not-empty': 'Wait until the queue is empty, or purge it first.',
  'other-broker': 'Give the worker the `AMQP_URL` of the server: the same RabbitMQ, the same vhost.',
  'unknown-node': 'Send a beat with `join` first; a worker that was away for long joins under a new id.',
  'too-large': 'Send less: a payload has at most 1 MiB, a batch 32 MiB and 10,000 tasks.',
  'unsupported-media-type': 'Send `content-type: application/json` (for a batch, `application/x-ndjson` will do, too).',
  validation: 'Change the fields that `errors` names. Unknown fields are refused.',
  'unknown-queue': 'Create the queue first, with `PUT /api/v1/queues/<name>`.',
  'unknown-exchange': 'Create the exchange first, with `PUT /api/v1/exchanges/<name>`.',
  unroutable: 'Bind a queue to the exchange for this routing key, or correct the key.',
  'unknown-target': 'Give a target that this version knows and that may be reached; see `TARGET_ALLOW`.',
  'unknown-handler': 'Put the file into `HANDLERS_DIR`, or correct the name.',
  'unknown-parent': 'The parent does not exist (any more).',
  unstorable: 'A row of the batch cannot be held; `errors` names it, or send the batch in halves to find it.',
  'file-server':
    'A file server was asked for you and refused, or could not be reached. The detail says which layer failed, and why.',
  internal: 'A bug. The log has more under the same time; please report it.',
  'secret-key-missing': 'Nothing was done. Set `LONGSHORE_SECRET_KEY` on every node, and start them again.',
  'database-unavailable': 'Nothing was done. Try again after `Retry-After`; `/health/ready` tells when it is back.',
  'broker-unavailable':
    'RabbitMQ is away or refuses. Try again after `Retry-After`: a deletion or a purge that was cut off goes on where it was. Tasks are accepted all the while.',
  'storage-full': 'Nothing was done. Free space where the database lies.',
  unknown: 'It may have been done. Repeat it with the same `idempotencyKey`, or look.',
  overloaded: 'Nothing was done. Try again after `Retry-After`, and send fewer at once or in batches.',
  'shutting-down': 'Nothing was done. Try again: another node, or this one after its restart.',
}

export const STATUS_WORDS: Record<Status, string> = {
  pending: 'Accepted and committed. Waits for its time (`dueAt`), or for a node.',
  queued: 'Handed to the broker. With the broker inside the process a task skips this status.',
  running: 'In the hands of a node, or of a foreign consumer. A parent is running until its last child is final.',
  retrying: 'Failed, and waits until `dueAt` for its next attempt.',
  succeeded: 'Done. Kept for 7 days by default.',
  dead: 'A dead letter: it failed for good or as often as allowed. Kept for 90 days by default, to be read, replayed or discarded.',
  cancelled: 'Ended by request. Kept for 7 days by default.',
}

export const OUTCOME_WORDS: Record<OutcomeKind, string> = {
  succeeded: 'The target did its work.',
  failed: 'The target failed. It says whether trying again makes sense.',
  snoozed: 'The target asked to be called later.',
  cancelled: 'It was cancelled while it ran, and its target gave way.',
  lost: 'Its node or thread was gone before it ended. After five lost starts in a row the task is dead.',
  returned: 'A node gave it back before its target was started, such as when it stopped.',
}

export const CAUSE_WORDS: Record<Cause, string> = {
  'due-later': 'Its `dueAt` is in the future.',
  'queue-paused': 'Its queue is paused.',
  'no-consumer': 'No consumer takes from its queue, or no living node runs one.',
  'consumer-paused': 'Every consumer of its queue is paused.',
  'window-full':
    'All slots are busy, and others are next in line before it; or, on a queue of foreign consumers, RabbitMQ has to make room in its window first; or others are published to its exchange before it.',
  'rate-limited': 'Every consumer of its queue has reached its rate limit.',
  'broker-down': 'No node reaches RabbitMQ. The task waits in Postgres, or in RabbitMQ where it is.',
  'broker-blocked':
    'RabbitMQ takes no messages (memory or disk alarm), or has the queue or exchange otherwise than it should be: `detail` says what to do.',
  'waiting-in-broker': 'RabbitMQ has it, and no consumer has taken it yet: one of Longshore, or one of your own.',
  'retry-backoff': 'It failed, and waits for its next attempt.',
  children: 'Its own work is done; its children are not all final.',
  'worker-busy': 'All slots of its queue are busy.',
  'node-lost': 'Its node is silent; the task goes to another one when that counts as dead.',
}
