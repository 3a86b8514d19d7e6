import ipaddr from 'ipaddr.js'
import { classify } from './ip-class.ts'

/** What targets may reach beside public addresses; plain JSON, so that it can be handed to threads. */
export interface EgressRules {
  /** Host names, `*.` suffixes, addresses and CIDR ranges that may lie in loopback or private networks. */
  allow: string[]
  /** All loopback and private addresses may be reached. */
  allowPrivate: boolean
}

/** A network and its length in bits. */
export type Range = readonly [network: ipaddr.IPv4 | ipaddr.IPv6, bits: number]

const NAME = /^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$/

/**
 * Reads `TARGET_ALLOW`: host names, `*.example.com`, addresses and CIDR ranges, separated by commas or spaces.
 * It opens loopback and private networks one by one; public addresses need no entry, and metadata, link-local, multicast and
 * reserved ones stay closed whatever is listed. Undefined (not set) opens all private ones while `hostIsLoopback`, that is,
 * while only this machine can submit tasks; an empty text opens none.
 * Every mistake is reported as a sentence; then `rules` holds the good entries only.
 */
export function parseEgressRules(
  targetAllow: string | undefined,
  hostIsLoopback: boolean,
): { rules: EgressRules; mistakes: string[] } {
  if (targetAllow === undefined) return { rules: { allow: [], allowPrivate: hostIsLoopback }, mistakes: [] }
  const allow = new Set<string>()
  const mistakes: string[] = []
  for (const entry of targetAllow.split(/[\s,]+/).filter(Boolean)) {
    const read = readEntry(entry)
    if (read.ok) allow.add(read.entry)
    else mistakes.push(`TARGET_ALLOW: "${entry}" ${read.reason}`)
  }
  return { rules: { allow: [...allow], allowPrivate: false }, mistakes }
}

/** True when the host name is one of `names`, or lies under one of the form `*.example.com`. */
export function isListedName(hostname: string, names: readonly string[]): boolean {
  const host = hostname.toLowerCase().replace(/\.$/, '')
  return names.some((name) =>
    name.startsWith('*.') ? host.endsWith(name.slice(1)) && host.length >= name.length : host === name,
  )
}

/** Reads an address or a CIDR range; undefined when it is neither. */
export function parseRange(entry: string): Range | undefined {
  const [address = '', length, ...rest] = entry.split('/')
  if (rest.length > 0 || address.includes('%')) return undefined
  if (!ipaddr.IPv4.isValidFourPartDecimal(address) && !ipaddr.IPv6.isValid(address)) return undefined
  const ip = ipaddr.parse(address)
  const most = ip.kind() === 'ipv4' ? 32 : 128
  if (length === undefined) return [ip, most]
  if (!/^\d{1,3}$/.test(length) || Number(length) > most) return undefined
  return [ip, Number(length)]
}

type Read = { ok: true; entry: string } | { ok: false; reason: string }

function readEntry(entry: string): Read {
  const range = parseRange(entry)
  if (range) return readRange(range)
  // Only an IPv6 address may hold a colon; a host with its port, or a URL, is a likely slip.
  if (/[:/]/.test(entry)) {
    return {
      ok: false,
      reason: 'is none of: a host name (without scheme, port and path), *.example.com, an address, a CIDR range',
    }
  }
  const stars = entry.startsWith('*.') ? '*.' : ''
  // URL writes the name as it will be compared: lower case, IDN as punycode, odd IPv4 forms as an address.
  const hostname = URL.parse(`http://${entry.slice(stars.length)}/`)?.hostname.replace(/\.$/, '')
  if (!hostname || hostname.length > 253 || !NAME.test(stars + hostname)) {
    return { ok: false, reason: 'is none of: a host name, *.example.com, an address, a CIDR range' }
  }
  if (ipaddr.IPv4.isValid(hostname)) return { ok: false, reason: `is an unusual way to write ${hostname}; write that` }
  return { ok: true, entry: stars + hostname }
}

function readRange([ip, bits]: Range): Read {
  const written = `${ip.toString()}/${bits}`
  const family = ip.kind() === 'ipv4' ? ipaddr.IPv4 : ipaddr.IPv6
  const network = family.networkAddressFromCIDR(written).toString()
  if (network !== ip.toString()) return { ok: false, reason: `has bits behind its prefix; write ${network}/${bits}` }
  const [first, last] = [network, family.broadcastAddressFromCIDR(written).toString()].map((end) => classify(end)[0])
  if (first?.ip?.kind() !== ip.kind()) return { ok: false, reason: 'stands for IPv4 addresses; list those' }
  if (
    first?.standing.kind === 'never' &&
    last?.standing.kind === 'never' &&
    first.standing.what === last.standing.what
  ) {
    return { ok: false, reason: `is never reached, listed or not: ${first.standing.what}` }
  }
  return { ok: true, entry: written }
}
