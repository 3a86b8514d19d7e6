import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

type Ip = ipaddr.IPv4 | ipaddr.IPv6

/** Where an address lies. `local` is reached only where the rules permit it, `never` not even then. */
export type Standing = { kind: 'public' } | { kind: 'local'; what: string } | { kind: 'never'; what: string }

/**
 * Addresses that clouds answer credentials on and that do not lie in the link-local range, which is refused as a whole:
 * Alibaba, Azure, Oracle, AWS (IMDS, EKS), Google, Scaleway.
 */
const METADATA = [
  '100.100.100.200',
  '168.63.129.16',
  '169.254.169.254',
  '192.0.0.192',
  'fd00:ec2::254',
  'fd00:ec2::23',
  'fd20:ce::254',
  'fd00:42::42',
].map((text) => ipaddr.parse(text).toString())

const RESERVED = 'a reserved address'
const WORDS: Partial<Record<string, Standing>> = {
  unicast: { kind: 'public' },
  loopback: { kind: 'local', what: 'a loopback address' },
  private: { kind: 'local', what: 'a private address' },
  uniqueLocal: { kind: 'local', what: 'a private address' },
  carrierGradeNat: { kind: 'local', what: 'a private address (carrier-grade NAT)' },
  linkLocal: { kind: 'never', what: 'a link-local address' },
  multicast: { kind: 'never', what: 'a multicast address' },
  unspecified: { kind: 'never', what: 'the unspecified address' },
  broadcast: { kind: 'never', what: 'the broadcast address' },
}

/** 2000::/3 is all that IANA has given out as global unicast. */
const GLOBAL_V6 = ipaddr.IPv6.parseCIDR('2000::/3')
/** The last 32 bits are the IPv4 address: compatible (RFC 4291), mapped, translated (RFC 2765), NAT64 (RFC 6052). */
const CARRIES_V4_AT_END = ['::/96', '::ffff:0:0/96', '::ffff:0:0:0/96', '64:ff9b::/96'].map((cidr) =>
  ipaddr.IPv6.parseCIDR(cidr),
)
const SIX_TO_FOUR = ipaddr.IPv6.parseCIDR('2002::/16')
const TEREDO = ipaddr.IPv6.parseCIDR('2001::/32')

/**
 * Judges an address by where its packets end up: an IPv6 address that carries an IPv4 one by that one. Teredo carries two
 * (its server and its client), and both count. What cannot be read, or has a zone, is never reached.
 */
export function classify(address: string): { ip: Ip | undefined; standing: Standing }[] {
  if (!ipaddr.isValid(address) || address.includes('%')) {
    return [{ ip: undefined, standing: { kind: 'never', what: 'no address of a host' } }]
  }
  const ip = ipaddr.parse(address)
  const carried = ip instanceof ipaddr.IPv6 ? carriedBy(ip) : []
  return (carried.length > 0 ? carried : [ip]).map((judged) => ({ ip: judged, standing: standingOf(judged) }))
}

/** Whether what listens there, or is found there, is this machine alone. `host` is a name or an address without brackets. */
export function isLoopbackHost(host: string): boolean {
  if (isIP(host) === 0) return host.toLowerCase() === 'localhost'
  return ipaddr.parse(host).range() === 'loopback'
}

function standingOf(ip: Ip): Standing {
  if (METADATA.includes(ip.toString())) return { kind: 'never', what: 'a cloud metadata address' }
  const range = ip.range()
  if (range === 'unicast' && ip instanceof ipaddr.IPv6 && !ip.match(GLOBAL_V6)) return { kind: 'never', what: RESERVED }
  return WORDS[range] ?? { kind: 'never', what: RESERVED }
}

/** The IPv4 addresses inside an IPv6 address; none for most. */
function carriedBy(ip: ipaddr.IPv6): ipaddr.IPv4[] {
  const [, a = 0, b = 0, c = 0, , , y = 0, z = 0] = ip.parts
  const range = ip.range()
  if (range === 'unspecified' || range === 'loopback') return []
  if (CARRIES_V4_AT_END.some((cidr) => ip.match(cidr))) return [ipv4(y, z)]
  if (ip.match(SIX_TO_FOUR)) return [ipv4(a, b)]
  // The client's address is stored with its bits flipped (RFC 4380).
  if (ip.match(TEREDO)) return [ipv4(b, c), ipv4(y ^ 0xffff, z ^ 0xffff)]
  return []
}

function ipv4(high: number, low: number): ipaddr.IPv4 {
  return new ipaddr.IPv4([high >> 8, high & 0xff, low >> 8, low & 0xff])
}
