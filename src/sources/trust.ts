import { completeSource } from '../task/source/defaults.ts'
import type { SourceSettings } from '../task/source/source.ts'

/** The settings that say where a source's server is, and who it must be. */
const FIELDS = ['protocol', 'host', 'port', 'tls', 'hostKey'] as const

/**
 * The first setting after whose change another server could be meant, or be trusted: a password that was given for the one is
 * not for the other. Undefined when there is none; newer TLS alone is none.
 */
export function changedTrust(before: SourceSettings, after: SourceSettings): (typeof FIELDS)[number] | undefined {
  const [one, other] = [trustOf(before), trustOf(after)]
  if (other.tls.minVersion > one.tls.minVersion) other.tls.minVersion = one.tls.minVersion
  return FIELDS.find((field) => JSON.stringify(one[field]) !== JSON.stringify(other[field]))
}

function trustOf(settings: SourceSettings) {
  const { protocol, host, port, tls, hostKey } = completeSource(settings)
  return { protocol, host, port, tls, hostKey }
}

/** The setting in which a source itself states who its server is, whoever has answered before; undefined: none. */
export function statedIdentity({ hostKey, tls }: SourceSettings): 'hostKey' | 'tls.fingerprint' | undefined {
  if (hostKey !== undefined) return 'hostKey'
  return tls?.fingerprint === undefined ? undefined : 'tls.fingerprint'
}
