import { promises as dns, type LookupAddress } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import ipaddr from 'ipaddr.js'
import { messageOf } from '../errors.ts'
import { classify } from './ip-class.ts'
import { type EgressRules, isListedName, parseRange, type Range } from './rules.ts'

/** Resolves a name to all its addresses; rejects with the resolver's error. */
export type Resolve = (hostname: string) => Promise<LookupAddress[]>

/** Guards outgoing requests against reaching what is not theirs to reach (SSRF). */
export interface Egress {
  /**
   * Why this URL may not be requested, as far as the URL alone tells: its scheme, userinfo, a literal address, `localhost`.
   * Undefined when nothing speaks against it; a name is judged by what it resolves to, when it is connected to.
   * A client skips `lookup` for literal addresses, so call this before each request.
   */
  checkUrl(url: string | URL): string | undefined
  /**
   * The same for a host alone, as a socket takes it (an IPv6 address without brackets): why it may not be connected to, as
   * far as the text tells. Call it before each connection, and connect with `lookup`.
   */
  checkHost(host: string): string | undefined
  /**
   * For `node:http`, `node:https` and `node:net`: resolves the name once and gives only those of its addresses that may be
   * reached, so the address that was checked is the one connected to. Fails with EgressRefused when none is left.
   */
  lookup: LookupFunction
}

/** No address of a host may be reached; `message` says why. */
export class EgressRefused extends Error {
  override readonly name = 'EgressRefused'
  readonly code = 'EGRESS_REFUSED'
}

const resolveBySystem: Resolve = (hostname) => dns.lookup(hostname, { all: true, verbatim: true })

/** A guard that keeps `rules`. Throws when they hold an entry that `parseEgressRules` would not let through. */
export function createEgress(rules: EgressRules, resolve: Resolve = resolveBySystem): Egress {
  const ranges: Range[] = []
  const names: string[] = []
  for (const entry of rules.allow) {
    const range = parseRange(entry)
    if (range) ranges.push(range)
    else names.push(entry)
  }

  /** Why the address may not be reached, or undefined. `listed`: its name is in TARGET_ALLOW. */
  const refusal = (address: string, listed: boolean): string | undefined => {
    for (const { ip, standing } of classify(address)) {
      switch (standing.kind) {
        case 'public':
          continue
        case 'never':
          return `${address} is ${standing.what}, which no target may reach`
        case 'local': {
          if (rules.allowPrivate || listed) continue
          if (ip && ranges.some(([network, bits]) => network.kind() === ip.kind() && ip.match(network, bits))) continue
          return `${address} is ${standing.what}; list it in TARGET_ALLOW to permit it`
        }
        default:
          return standing satisfies never
      }
    }
    return undefined
  }

  const permitted = async (hostname: string, family: number): Promise<LookupAddress[]> => {
    const listed = isListedName(hostname, names)
    const found = (await resolve(hostname)).filter((each) => family === 0 || each.family === family)
    if (found.length === 0) throw Object.assign(new Error(`${hostname} has no address`), { code: 'ENOTFOUND' })
    const reasons: string[] = []
    const allowed = found.filter(({ address }) => {
      const reason = refusal(address, listed)
      if (reason !== undefined) reasons.push(reason)
      return reason === undefined
    })
    if (allowed.length === 0) throw new EgressRefused(`${hostname} resolves to ${reasons.join('; ')}`)
    return allowed
  }

  const checkHost = (host: string): string | undefined => {
    // Whatever a socket would take for an address: it is connected to without a lookup.
    if (isIP(host) || ipaddr.isValid(host)) return refusal(host, false)
    if (!/(^|\.)localhost\.?$/i.test(host) || isListedName(host, names)) return undefined
    // Such names are loopback by RFC 6761; saying so here tells the submitter, not only the attempt.
    return (
      refusal('127.0.0.1', false) &&
      refusal('::1', false) &&
      `${host} is a loopback name; list it in TARGET_ALLOW to permit it`
    )
  }

  return {
    checkUrl(url) {
      const parsed = typeof url === 'string' ? URL.parse(url) : url
      if (!parsed) return 'it is not a URL'
      if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') return 'only http and https URLs are requested'
      if (parsed.username || parsed.password) return 'the URL holds a user name or password; use a header instead'
      return checkHost(bareHost(parsed))
    },
    checkHost,
    lookup(hostname, options, callback) {
      permitted(hostname, Number(String(options.family ?? 0).replace('IPv', ''))).then(
        (addresses) => {
          if (options.all) return callback(null, addresses)
          const [first] = addresses as [LookupAddress]
          callback(null, first.address, first.family)
        },
        (thrown) => callback(thrown instanceof Error ? thrown : new Error(messageOf(thrown)), ''),
      )
    },
  }
}

/** The host of a URL without the brackets of an IPv6 address: what a socket connects to. */
export function bareHost(url: URL): string {
  const { hostname } = url
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}
