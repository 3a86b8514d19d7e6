/**
 * Writes the pages of docs/ that say what the code says: settings, error codes, statuses and outcomes.
 * `--check` only compares; a test does the same.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { VARIABLES } from '../src/config/variables.ts'
import { formatDuration } from '../src/runtime/duration.ts'
import { PROBLEMS, type ProblemCode } from '../src/runtime/errors.ts'
import { LIMITS } from '../src/task/limits.ts'
import type { Outcome, OutcomeKind } from '../src/task/outcome.ts'
import { DEFAULT_RETRY_POLICY } from '../src/task/retry-policy.ts'
import { FINAL_STATUSES, isFinal, STATUSES } from '../src/task/status.ts'
import { transition } from '../src/task/transition.ts'
import { CAUSES } from '../src/task/waiting-for.ts'
import { CAUSE_WORDS, OUTCOME_WORDS, PROBLEM_WORDS, STATUS_WORDS } from './docs-words.ts'

const DOCS = join(import.meta.dir, '../docs')
const MADE = '<!-- Made by `bun scripts/write-docs.ts`; do not edit. -->'

/** The generated pages, by file name in docs/. */
export function renderDocs(): Record<string, string> {
  return {
    'configuration.md': renderConfiguration(),
    'errors.md': renderErrors(),
    'statuses-and-outcomes.md': renderStatuses(),
  }
}

function renderConfiguration(): string {
  const settings = Object.values(VARIABLES).map(({ name, description, allowed, shown, ...rest }) => {
    const aliases = 'aliases' in rest ? `\n- Also read as: ${rest.aliases.map((name) => `\`${name}\``).join(', ')}` : ''
    const secret = 'secret' in rest && rest.secret ? '\n- Its value is never shown in a message.' : ''
    return `### \`${name}\`\n\n${description}\n\n- Allowed: ${allowed}\n- Default: ${shown}${aliases}${secret}`
  })
  return page(
    'Configuration',
    `Every setting is an environment variable. A flag counts before the environment, the environment before the file \`.env\`
in the working directory, that before the default. An empty value counts as not given, but for \`TARGET_ALLOW\`. Durations are written \`250ms\`, \`30s\`,
\`15m\`, \`2h\`, \`7d\`.

A node reads its settings once, when it starts. It refuses to start when one of them cannot be used, or when a variable
that begins with \`LONGSHORE_\` is unknown, and then names every mistake at once, on stderr, with exit code 2:

\`\`\`
The configuration cannot be used:
- PORT must be ${VARIABLES.port.allowed} (given: "eighty")
- LONGSHORE_ROLE is unknown; did you mean LONGSHORE_ROLES?
\`\`\`

[.env.example](../.env.example) holds the same list, ready to be copied to \`.env\`.

## Settings

${settings.join('\n\n')}`,
  )
}

function renderErrors(): string {
  const codes = Object.entries(PROBLEMS) as [ProblemCode, readonly [number, string]][]
  return page(
    'Error codes',
    `Every error of the API is \`application/problem+json\` ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)). Go by \`code\`: the set is closed. \`detail\` is
a sentence for people: what happened, and what to do. Where fields of the request are wrong, \`errors\` names all of them;
\`path\` is a JSON Pointer into the body, or the name of a query parameter.

\`\`\`json
${JSON.stringify(
  {
    type: 'urn:longshore:problem:unknown-queue',
    title: PROBLEMS['unknown-queue'][1],
    status: PROBLEMS['unknown-queue'][0],
    detail: 'There is no queue "emials": create it with PUT /api/v1/queues/<name>',
    code: 'unknown-queue',
    errors: [{ path: '/queue', message: 'There is no queue "emials": create it with PUT /api/v1/queues/<name>' }],
  },
  null,
  2,
)}
\`\`\`

A 4xx will fail again until the request is changed. A 503 says that nothing was done, unless its row says otherwise, and carries \`Retry-After\`. With the code
\`unknown\` the commit's answer was lost: send the same request again with the same \`idempotencyKey\`, and there
will be one task.

${table(
  ['status', 'code', 'title', 'what to do'],
  codes.map(([code, [status, title]]) => [String(status), `\`${code}\``, title, PROBLEM_WORDS[code]]),
)}`,
  )
}

/** One end of an attempt of each kind. */
const OUTCOMES: Record<OutcomeKind, Outcome[]> = {
  succeeded: [{ kind: 'succeeded' }],
  failed: [
    { kind: 'failed', retryable: true, error: '' },
    { kind: 'failed', retryable: false, error: '' },
  ],
  snoozed: [{ kind: 'snoozed', delayMs: 1 }],
  cancelled: [{ kind: 'cancelled' }],
  lost: [{ kind: 'lost', error: '', started: true }],
  returned: [{ kind: 'returned' }],
}

function renderStatuses(): string {
  const outcomes = Object.entries(OUTCOMES).flatMap(([kind, ends]) =>
    ends.map((outcome) => {
      const name = outcome.kind === 'failed' ? `failed, ${outcome.retryable ? 'retryable' : 'for good'}` : kind
      const next = (failures: number, lostStarts: number) =>
        transition({ failures, maxAttempts: 2, lostStarts }, outcome, DEFAULT_RETRY_POLICY, () => 0).status
      const first = next(0, 0)
      const last = [next(1, 0), next(0, LIMITS.lostStarts - 1)].find((status) => status !== first)
      const becomes = last ? `\`${first}\`; \`${last}\` at the limit` : `\`${first}\``
      const spent = outcome.kind === 'failed' ? 'a failure' : 'nothing'
      return [name, becomes, spent, OUTCOME_WORDS[outcome.kind]]
    }),
  )
  const { maxAttempts, backoff } = DEFAULT_RETRY_POLICY
  return page(
    'Statuses and outcomes',
    `## Statuses of a task

${table(
  ['status', 'final', 'meaning'],
  STATUSES.map((status) => [`\`${status}\``, isFinal(status) ? 'yes' : '', STATUS_WORDS[status]]),
)}

${FINAL_STATUSES.map((status) => `\`${status}\``).join(', ')} are final. Only a replay leaves them, and only from \`dead\` and \`cancelled\`; to run a task again that
succeeded, submit a new one.

\`\`\`
submit ─► pending ─► running ─┬─► succeeded
             ▲                ├─► failed ─► retrying ─► running
             │                ├─► failed for good, or too often ─► dead
             ├────────────────┴── lost, snoozed, given back          │
             └──────────────────── replay ◄── cancelled, dead ◄──────┘
\`\`\`

A cancel takes effect at once on a task that waits, and when its target gives way on one that runs. With RabbitMQ a task is \`queued\`
before it is \`running\`.

## Outcomes of an attempt

An attempt is one execution. Its number rises by one each time and is never used again. \`failures\` counts only what failed, and
a task is dead when it reaches \`maxAttempts\` (${maxAttempts} by default, after waits that begin at ${backoff.kind === 'exponential' ? backoff.base : ''} and double).

${table(['outcome', 'the task becomes', 'spends', 'when'], outcomes)}

A task that was asked to be cancelled while it ran becomes \`cancelled\` by whatever outcome but \`succeeded\`. A task with children
that succeeded itself stays \`running\` until the last of them is final: then it is \`succeeded\` if all of them are, else \`dead\`.

### What an http target makes of a response

| response | outcome |
| --- | --- |
| 200 to 299, or what \`success\` lists | succeeded |
| 408, 425, 429, 500 to 599 | failed, retryable; \`Retry-After\` is kept to, up to ${formatDuration(LIMITS.retryAfterMs)} |
| no response within the timeout, no connection, a broken one | failed, retryable |
| an address that targets may not reach, other 3xx and 4xx | failed for good |

Redirects are not followed.

### What a handler makes of its end

It returns: succeeded, with what it returned as the result; \`{ snooze: '5m' }\`: snoozed. It throws: failed, retryable, but for an error with
\`retryable: false\`. Over its timeout: \`signal\` is aborted, then the thread is ended; failed, retryable. Its thread ends because of another task: lost.

## Why a task is not running

Every live task that does not run says why in \`waitingFor\`: \`cause\`, a sentence in \`detail\`, and \`until\` where the wait ends by itself.
The first that holds is told.

${table(
  ['cause', 'meaning'],
  CAUSES.map((cause) => [`\`${cause}\``, CAUSE_WORDS[cause]]),
)}`,
  )
}

function page(title: string, body: string): string {
  return `# ${title}\n\n${MADE}\n\n${body}\n`
}

function table(head: string[], rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}

if (import.meta.main) {
  const check = process.argv.includes('--check')
  for (const [name, text] of Object.entries(renderDocs())) {
    const file = join(DOCS, name)
    if (!check) writeFileSync(file, text)
    else if (readFileSync(file, 'utf8') !== text) {
      console.error(`docs/${name} is not what the code says: run \`bun scripts/write-docs.ts\` and commit the result`)
      process.exitCode = 1
    }
  }
}
