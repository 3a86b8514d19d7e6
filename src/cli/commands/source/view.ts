import type { ShownAuth } from '../../../task/source/source.ts'
import type { PollFailure, PollReport, ServerIdentity, SourceAlert } from '../../../task/source/state.ts'
import { counted, facts, oneLine, paint, paintStatus, shortDuration, shortTime, table } from '../../output.ts'

/** The part of a source's JSON that people are shown. */
export interface Source {
  id: string
  name: string
  protocol: string
  host: string
  port?: number
  directory?: string
  cron?: string
  timezone?: string
  mode?: string
  auth: ShownAuth | null
  tls?: { verify?: boolean }
  passiveHost?: string
  deliver?: { queue: string; recordsPerTask?: number }
  status: string
  managedBy: string | null
  pinned: ServerIdentity | null
  alert: SourceAlert | null
  nextPollAt: string | null
  polledAt: string | null
  poll: PollReport | null
}

export const SOURCE = 'the name of a source, or its id'

export function sourcePath(source: string): string {
  return `/sources/${encodeURIComponent(source)}`
}

const placeOf = ({ protocol, host, port, directory }: Source) =>
  `${protocol}://${host}${port === undefined ? '' : `:${port}`}${directory?.startsWith('/') ? '' : '/'}${directory ?? ''}`

export function sourceTable(sources: readonly Source[]): string {
  return table<Source>(
    [
      { head: 'SOURCE', cell: ({ name }) => oneLine(name, 40) },
      { head: 'STATUS', cell: ({ status }) => paintedStatus(status) },
      { head: 'NEXT', cell: ({ nextPollAt }) => shortTime(nextPollAt) || 'when asked' },
      { head: 'LAST', cell: ({ polledAt }) => shortTime(polledAt) || '-' },
      { head: 'FETCHED', cell: ({ poll }) => poll?.fetched ?? '-', right: true },
      { head: 'SERVER', cell: (source) => oneLine(placeOf(source), 60) },
      { head: '', cell: ({ alert, poll }) => troubleOf(alert, poll) },
    ],
    sources,
  )
}

function paintedStatus(status: string): string {
  return status === 'alert' ? paint('red', status) : paintStatus(status)
}

function troubleOf(alert: SourceAlert | null, poll: PollReport | null): string {
  const message = alert?.message ?? poll?.error?.message
  return message === undefined ? '' : paint('red', oneLine(message))
}

/** A source, and what is less safe about it than it could be. */
export function sourceDescription(source: Source): string {
  const { name, status, auth, cron, timezone = 'UTC', deliver, mode, managedBy, pinned, alert, poll } = source
  return facts([
    ['source', name],
    ['id', source.id],
    ['status', paintedStatus(status)],
    ['alert', alert ? paint('red', oneLine(alert.message, 600)) : undefined],
    ['server', oneLine(placeOf(source), 400)],
    ['login', auth ? loginText(auth) : 'anonymous'],
    ['identity', pinned ? identityText(pinned) : undefined],
    ['less safe', risksOf(source).join('; ')],
    ['when', cron === undefined ? 'when asked' : `${cron} (${timezone})`],
    ['next poll', shortTime(source.nextPollAt)],
    [
      'records',
      deliver ? `to the queue "${deliver.queue}", ${counted(deliver.recordsPerTask ?? 1, 'record')} a task` : undefined,
    ],
    ['mode', mode === 'announce' ? 'announce: others fetch the files' : undefined],
    ['managed by', managedBy ?? undefined],
    ['last poll', poll ? `${shortTime(source.polledAt)}: ${pollText(poll)}` : undefined],
    ['refused', poll ? refusedText(poll) : undefined],
  ])
}

function loginText({ kind, username, secret }: ShownAuth): string {
  const login = `${oneLine(username)} (${kind})`
  if (secret === 'missing') return `${login}, ${paint('red', `whose ${kind} is missing: PATCH "auth"`)}`
  return secret === 'listed' ? `${login}, from its list` : login
}

const REFUSED_SHOWN = 3

function refusedText({ refused: { count, first } }: PollReport): string {
  const shown = first.slice(0, REFUSED_SHOWN).map(({ name, reason }) => `${oneLine(name)}: ${oneLine(reason, 300)}`)
  return [...shown, ...(count > shown.length ? [`and ${count - shown.length} more`] : [])].join('; ')
}

function risksOf({ protocol, tls, passiveHost }: Source): string[] {
  return [
    ...(protocol === 'ftp' ? ['ftp sends passwords and files in the clear'] : []),
    ...(tls?.verify === false ? ['the certificate is not verified'] : []),
    ...(passiveHost === 'announced' ? ['data connections go where the server says'] : []),
  ]
}

export function identityText({ hostKey, certificate }: ServerIdentity): string {
  if (hostKey) return `${hostKey.algorithm} ${hostKey.fingerprint}`
  if (!certificate) return 'unknown'
  const { subject, issuer, validTo, fingerprint } = certificate
  return `${oneLine(subject)}, by ${oneLine(issuer)}, until ${shortTime(validTo)}, SHA-256 ${fingerprint}`
}

export function failureText({ layer, reason, message }: PollFailure): string {
  return `${oneLine(message, 600)} (${layer}: ${reason})`
}

/** What a poll came to, in a line. */
export function pollText(poll: PollReport): string {
  if (poll.error) return paint('red', failureText(poll.error))
  if (poll.announced !== undefined) return `announced by task ${poll.announced}`
  const words = [
    counted(poll.files, 'file'),
    `${poll.new} new`,
    `${poll.changed} changed`,
    `${poll.fetched} fetched`,
    `${poll.incomplete} not complete yet`,
    ...(poll.left > 0 ? [`${poll.left} left for the next poll`] : []),
    ...(poll.failed.count > 0 ? [paint('red', `${poll.failed.count} failed`)] : []),
    ...(poll.refused.count > 0 ? [`${counted(poll.refused.count, 'name')} refused`] : []),
  ]
  return `${words.join(', ')} in ${shortDuration(poll.tookMs)}`
}
