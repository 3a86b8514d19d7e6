import { checkFormat } from '../files/parsers/check-format.ts'
import { absolutePath } from '../files/remote/names.ts'
import { RemoteFailure } from '../files/remote-files.ts'
import { parseCron } from '../runtime/cron.ts'
import { type FieldError, messageOf, Problem } from '../runtime/errors.ts'
import { completeSource } from '../task/source/defaults.ts'
import { CONTENT_TYPES, importQueue, type SourceAuth, type SourceSettings } from '../task/source/source.ts'
import { folderPath } from './visit/listing.ts'

export interface SourceChecks {
  /** Why connections may not go to this host, as far as its text tells; undefined when they may. */
  checkHost(host: string): string | undefined
}

/** Bounds of a source's time-outs, in milliseconds. */
const CONNECT_MS = { min: 100, max: 10 * 60_000 }
const IDLE_MS = { min: 1_000, max: 60 * 60_000 }

/**
 * Throws a Problem that names every field of a source that satisfies its schema and could not be polled. `auth` null: without a
 * login.
 */
export function checkSource(
  settings: SourceSettings,
  auth: Pick<SourceAuth, 'kind'> | null,
  checks: SourceChecks,
): void {
  const errors = [
    ...serverErrors(settings, auth, checks),
    ...timingErrors(settings),
    ...folderErrors(settings),
    ...deliveryErrors(settings),
  ]
  const [first] = errors
  if (first) throw new Problem('validation', `${first.path}: ${first.message}`, errors)
}

type Refuse = (path: string, message: string) => void

function collect(find: (refuse: Refuse) => void): FieldError[] {
  const errors: FieldError[] = []
  find((path, message) => errors.push({ path, message }))
  return errors
}

function serverErrors(
  { protocol, host, tls, hostKey, passiveHost }: SourceSettings,
  auth: Pick<SourceAuth, 'kind'> | null,
  { checkHost }: SourceChecks,
): FieldError[] {
  return collect((refuse) => {
    const isTls = protocol === 'ftps' || protocol === 'ftps-implicit'
    const reason = checkHost(host)
    if (reason !== undefined) refuse('/host', `cannot be connected to: ${reason}`)
    if (protocol === 'sftp' && !auth) refuse('/auth', 'is needed with sftp')
    if (protocol !== 'sftp' && auth?.kind === 'key') refuse('/auth/kind', 'may be key with sftp only')
    if (protocol !== 'sftp' && hostKey !== undefined) refuse('/hostKey', 'has a meaning with sftp only')
    if (protocol === 'sftp' && passiveHost !== undefined) refuse('/passiveHost', 'has no meaning with sftp')
    if (!isTls && tls !== undefined) refuse('/tls', 'has a meaning with ftps and ftps-implicit only')
    if (tls?.ca !== undefined && !tls.ca.includes('-----BEGIN CERTIFICATE-----')) refuse('/tls/ca', 'must be PEM')
    if (tls?.fingerprint !== undefined && !/^([0-9a-f]{2}:?){31}[0-9a-f]{2}$/i.test(tls.fingerprint)) {
      refuse('/tls/fingerprint', 'must be 64 hex digits, with colons between the pairs or without')
    }
  })
}

function timingErrors({ cron, timezone, limits }: SourceSettings): FieldError[] {
  return collect((refuse) => {
    const parsed = parseCron(cron ?? '* * * * *', timezone ?? 'UTC')
    if (!parsed.ok) refuse(`/${parsed.field}`, parsed.reason)
    const { connectTimeoutMs, idleTimeoutMs } = completeSource({
      protocol: 'ftp',
      host: '',
      ...(limits && { limits }),
    }).limits
    const isIn = (ms: number, { min, max }: { min: number; max: number }) => ms >= min && ms <= max
    if (!isIn(connectTimeoutMs, CONNECT_MS)) refuse('/limits/connectTimeout', 'must be from 100ms to 10m')
    if (!isIn(idleTimeoutMs, IDLE_MS)) refuse('/limits/idleTimeout', 'must be from 1s to 1h')
  })
}

function folderErrors(settings: SourceSettings): FieldError[] {
  const { directory, after, failed } = completeSource(settings)
  return collect((refuse) => {
    const reason = pathRefusal(directory)
    if (reason !== undefined) refuse('/directory', reason)
    for (const [field, action] of Object.entries({ after, failed })) {
      if (action.kind !== 'move') continue
      const why = pathRefusal(action.to)
      if (why !== undefined) refuse(`/${field}/to`, why)
      // From there it would be polled again.
      else if (folderPath(directory, action.to) === folderPath(directory, '')) {
        refuse(`/${field}/to`, 'is the polled directory itself')
      }
    }
  })
}

function pathRefusal(path: string): string | undefined {
  try {
    absolutePath(path, '/', 'directory')
    return undefined
  } catch (error) {
    if (error instanceof RemoteFailure) return messageOf(error)
    throw error
  }
}

function deliveryErrors({ mode, format, deliver }: SourceSettings): FieldError[] {
  return collect((refuse) => {
    for (const { path, message } of format ? checkFormat(format) : []) refuse(`/format${path}`, message)
    if (mode === 'announce') {
      if (!format || format.type === 'by-extension') {
        refuse('/format', 'must be csv, json or xml in mode announce: it is the content type that is announced')
      }
      return
    }
    if (!deliver) refuse('/deliver', 'is needed in mode import: it says where the records go')
    else if (CONTENT_TYPES.some((type) => importQueue(type) === deliver.queue)) {
      refuse('/deliver/queue', 'is a queue of imports: records need another one')
    }
  })
}
