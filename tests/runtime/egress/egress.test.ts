import { describe, expect, test } from 'bun:test'
import type { LookupAddress } from 'node:dns'
import net, { type AddressInfo } from 'node:net'
import fc from 'fast-check'
import { createEgress, EgressRefused } from '../../../src/runtime/egress/egress.ts'
import { type EgressRules, parseEgressRules } from '../../../src/runtime/egress/rules.ts'

const open: EgressRules = { allow: [], allowPrivate: true }
const closed: EgressRules = { allow: [], allowPrivate: false }
const only = (...allow: string[]): EgressRules => ({ allow, allowPrivate: false })

const check = (rules: EgressRules, host: string) => createEgress(rules).checkUrl(`http://${host}/hook`)

/** What the guard gives for a name that resolves to `addresses`. */
function lookUp(rules: EgressRules, hostname: string, addresses: string[], family = 0): Promise<string[]> {
  const resolve = async () => addresses.map((address) => ({ address, family: net.isIP(address) || 6 }))
  return new Promise((done, fail) =>
    createEgress(rules, resolve).lookup(hostname, { all: true, family }, (error, found) =>
      error ? fail(error) : done((found as LookupAddress[]).map((each) => each.address)),
    ),
  )
}
const refusalOf = (rules: EgressRules, hostname: string, addresses: string[]) =>
  lookUp(rules, hostname, addresses).then(
    () => undefined,
    (error: unknown) => error,
  )

const PUBLIC = ['93.184.215.14', '1.1.1.1', '172.32.0.1', '100.128.0.1', '[2606:4700::1111]', '[2a00:1450:4001::1]']
const LOCAL = [
  '127.0.0.1',
  '127.9.9.9',
  '10.0.0.1',
  '172.16.0.1',
  '172.31.255.255',
  '192.168.1.1',
  '100.64.0.1',
  '[::1]',
  '[fd12:3456::1]',
]
const NEVER = [
  '169.254.169.254',
  '169.254.170.2',
  '100.100.100.200',
  '168.63.129.16',
  '192.0.0.192',
  '[fd00:ec2::254]',
  '[fd20:ce::254]',
  '169.254.1.1',
  '[fe80::1]',
  '224.0.0.1',
  '[ff02::1]',
  '0.0.0.0',
  '0.1.2.3',
  '[::]',
  '255.255.255.255',
  '240.0.0.1',
  '192.0.2.1',
  '198.18.0.1',
  '[2001:db8::1]',
  '[100::1]',
  '[fec0::1]',
  '[4000::1]',
  '[64:ff9b:1::7f00:1]',
]

describe('addresses in a URL', () => {
  test.each(PUBLIC)('%s is public and always permitted', (host) => {
    expect(check(closed, host)).toBeUndefined()
    expect(check(only('10.0.0.0/8'), host)).toBeUndefined()
  })

  test.each(LOCAL)('%s is permitted only by the rules', (host) => {
    expect(check(closed, host)).toContain('list it in TARGET_ALLOW')
    expect(check(open, host)).toBeUndefined()
    const address = host.replaceAll(/[[\]]/g, '')
    expect(check(only(`${address}/${address.includes(':') ? 128 : 32}`), host)).toBeUndefined()
  })

  test.each(NEVER)('%s is refused whatever the rules say', (host) => {
    for (const rules of [closed, open, only('0.0.0.0/0', '::/0')]) {
      expect(check(rules, host)).toContain('which no target may reach')
    }
  })

  test('an entry opens its own range and no more', () => {
    const rules = only('10.1.0.0/16')
    expect(check(rules, '10.1.255.255')).toBeUndefined()
    expect(check(rules, '10.2.0.0')).toContain('10.2.0.0 is a private address')
  })
})

describe('IPv6 addresses that carry an IPv4 one are judged by that one', () => {
  const carriers: [string, (hex: string) => string][] = [
    ['mapped', (hex) => `[::ffff:${hex}]`],
    ['compatible', (hex) => `[::${hex}]`],
    ['translated', (hex) => `[::ffff:0:${hex}]`],
    ['NAT64', (hex) => `[64:ff9b::${hex}]`],
    ['6to4', (hex) => `[2002:${hex}::1]`],
    ['Teredo server', (hex) => `[2001:0:${hex}:0:0:fefe:fefe]`],
  ]
  const flipped = (hex: string) =>
    hex
      .split(':')
      .map((part) => (Number.parseInt(part, 16) ^ 0xffff).toString(16))
      .join(':')
  carriers.push(['Teredo client', (hex) => `[2001:0:101:101:0:0:${flipped(hex)}]`])

  test.each(carriers)('%s', (_, carry) => {
    expect(check(closed, carry('7f00:1'))).toContain('loopback')
    expect(check(closed, carry('a00:1'))).toContain('private')
    expect(check(open, carry('a9fe:a9fe'))).toContain('metadata')
    expect(check(closed, carry('101:101'))).toBeUndefined()
    expect(check(only('10.0.0.0/8'), carry('a00:1'))).toBeUndefined()
    expect(check(only('::/0'), carry('a00:1'))).toContain('private')
  })

  test('the dotted form of a mapped address', () => {
    expect(check(closed, '[::ffff:127.0.0.1]')).toContain('loopback')
    expect(check(open, '[::ffff:169.254.169.254]')).toContain('metadata')
  })
})

describe('odd ways to write a host', () => {
  test.each([
    '2130706433',
    '0177.0.0.1',
    '0x7f.1',
    '0x7f000001',
    '127.1',
    '017700000001',
    '127.0.0.1.',
    '127。0。0。1',
    '①②⑦.0.0.1',
    '%31%32%37.0.0.1',
    'LOCALHOST',
    'localhost.',
    'a.localhost',
    '[0:0:0:0:0:0:0:1]',
    '[::ffff:7f00:0001]',
  ])('%s is loopback', (host) => {
    expect(check(closed, host)).toContain('loopback')
  })

  test.each(['0', '2852039166', '0251.0376.0251.0376', '0xa9fea9fe'])('%s is never reached', (host) => {
    expect(check(open, host)).toContain('which no target may reach')
  })

  test.each([
    ['a zone', 'http://[fe80::1%25eth0]/'],
    ['no URL', 'http://'],
    ['octets over 255', 'http://127.0.0.256/'],
  ])('%s is not a URL', (_, url) => {
    expect(createEgress(open).checkUrl(url)).toBe('it is not a URL')
  })

  test('only http and https are requested, and never with a user name or password', () => {
    const { checkUrl } = createEgress(open)
    for (const url of ['ftp://example.com/', 'file:///etc/passwd', 'gopher://example.com/', 'data:,x']) {
      expect(checkUrl(url)).toBe('only http and https URLs are requested')
    }
    for (const url of ['http://user@example.com/', 'http://:pw@example.com/', 'http://1.1.1.1:80@127.0.0.1/']) {
      expect(checkUrl(url)).toContain('user name or password')
    }
    expect(checkUrl('https://example.com/hook?x=1')).toBeUndefined()
  })

  test('localhost is permitted where its addresses or its name are', () => {
    expect(check(open, 'localhost')).toBeUndefined()
    expect(check(only('localhost'), 'localhost.')).toBeUndefined()
    expect(check(only('127.0.0.0/8'), 'localhost')).toBeUndefined()
    expect(check(only('10.0.0.0/8'), 'localhost')).toContain('loopback name')
  })
})

describe('a host alone, as a socket takes it', () => {
  test.each(LOCAL)('%s is permitted only by the rules', (host) => {
    const bare = host.replaceAll(/[[\]]/g, '')
    expect(createEgress(closed).checkHost(bare)).toContain('list it in TARGET_ALLOW')
    expect(createEgress(open).checkHost(bare)).toBeUndefined()
  })

  test.each(NEVER)('%s is refused whatever the rules say', (host) => {
    expect(createEgress(open).checkHost(host.replaceAll(/[[\]]/g, ''))).toContain('which no target may reach')
  })

  test.each(['2130706433', '0x7f.1', '127.1', 'LocalHost', 'a.localhost.'])('%s is loopback', (host) => {
    expect(createEgress(closed).checkHost(host)).toContain('loopback')
  })

  test('a name says nothing yet, and a listed loopback name is permitted', () => {
    expect(createEgress(closed).checkHost('ftp.example.com')).toBeUndefined()
    expect(createEgress(only('localhost')).checkHost('LOCALHOST')).toBeUndefined()
  })
})

describe('names are judged by what they resolve to', () => {
  test('a name with only private addresses is refused with the reason', async () => {
    const error = await refusalOf(closed, 'inner.test', ['10.0.0.7', '::ffff:127.0.0.1'])
    expect(error).toBeInstanceOf(EgressRefused)
    expect(String(error)).toContain('inner.test resolves to 10.0.0.7 is a private address')
    expect(String(error)).toContain('::ffff:127.0.0.1 is a loopback address')
  })

  test('of mixed addresses only the permitted ones are given', async () => {
    expect(await lookUp(closed, 'mixed.test', ['127.0.0.1', '93.184.215.14', '169.254.169.254'])).toEqual([
      '93.184.215.14',
    ])
    expect(await lookUp(open, 'mixed.test', ['127.0.0.1', '169.254.169.254'])).toEqual(['127.0.0.1'])
  })

  test('a listed name may lie in a private network, but not on a metadata or link-local address', async () => {
    const rules = only('crm.inner', '*.corp.test')
    expect(await lookUp(rules, 'CRM.inner.', ['10.0.0.7', '169.254.169.254'])).toEqual(['10.0.0.7'])
    expect(await lookUp(rules, 'a.b.corp.test', ['fd12::1'])).toEqual(['fd12::1'])
    for (const name of ['corp.test', 'evilcorp.test', 'crm.inner.evil.test', 'xcrm.inner']) {
      expect(await refusalOf(rules, name, ['10.0.0.7'])).toBeInstanceOf(EgressRefused)
    }
    expect(await refusalOf(rules, 'crm.inner', ['169.254.169.254'])).toBeInstanceOf(EgressRefused)
  })

  test('what the resolver gives in an unreadable form, or with a zone, is refused', async () => {
    for (const address of ['fe80::1%eth0', 'fd00:ec2::254%1', 'nonsense', '']) {
      expect(await refusalOf(open, 'odd.test', [address])).toBeInstanceOf(EgressRefused)
    }
  })

  test('a failure to resolve is passed on as it is, and no address at all is ENOTFOUND', async () => {
    const failing = createEgress(open, () => Promise.reject(Object.assign(new Error('later'), { code: 'EAI_AGAIN' })))
    const error = await new Promise((done) => failing.lookup('x.test', {}, (thrown) => done(thrown)))
    expect(error).toMatchObject({ code: 'EAI_AGAIN' })
    expect(await refusalOf(open, 'x.test', [])).toMatchObject({ code: 'ENOTFOUND' })
    expect(await lookUp(open, 'x.test', ['::1', '127.0.0.1'], 4)).toEqual(['127.0.0.1'])
  })

  test('a rebinding resolver is asked once for a connection, which goes to the address that was checked', async () => {
    const server = net.createServer((socket) => socket.end()).listen(0, '127.0.0.1')
    await new Promise((done) => server.once('listening', done))
    // First a good address, then one that must not be reached: whoever asks twice connects to the second.
    const answers = ['127.0.0.1', '169.254.169.254']
    let asked = 0
    const egress = createEgress(open, async () => [{ address: answers[asked++] ?? '', family: 4 }])
    const connect = () =>
      new Promise<string | undefined>((done, fail) => {
        const { port } = server.address() as AddressInfo
        const socket = net.connect({ host: 'rebinding.test', port, lookup: egress.lookup })
        socket.on('error', fail)
        socket.on('connect', () => {
          done(socket.remoteAddress)
          socket.destroy()
        })
      })
    try {
      expect(await connect()).toBe('127.0.0.1')
      expect(asked).toBe(1)
      await expect(connect()).rejects.toBeInstanceOf(EgressRefused)
    } finally {
      await new Promise((done) => server.close(done))
    }
  })

  test('the system resolver is used when none is given', async () => {
    const found = await new Promise((done, fail) =>
      createEgress(open).lookup('localhost', {}, (error, address) => (error ? fail(error) : done(address))),
    )
    expect(['127.0.0.1', '::1']).toContain(found as string)
  })
})

test('no address is permitted by one way of writing and refused by another', () => {
  const octet = fc.integer({ min: 0, max: 255 })
  fc.assert(
    fc.property(
      fc.tuple(octet, octet, octet, octet),
      fc.constantFrom(open, closed, only('10.0.0.0/8')),
      (octets, rules) => {
        const [a, b, c, d] = octets
        const number = a * 2 ** 24 + b * 2 ** 16 + c * 2 ** 8 + d
        const hex = octets.map((each) => each.toString(16).padStart(2, '0'))
        const verdict = check(rules, octets.join('.')) === undefined
        for (const host of [`${number}`, `0x${hex.join('')}`, `[::ffff:${hex[0]}${hex[1]}:${hex[2]}${hex[3]}]`]) {
          expect(check(rules, host) === undefined).toBe(verdict)
        }
      },
    ),
    { numRuns: 500 },
  )
})

describe('TARGET_ALLOW', () => {
  test('not set opens private addresses only while HOST is loopback; empty opens none', () => {
    expect(parseEgressRules(undefined, true)).toEqual({ rules: open, mistakes: [] })
    expect(parseEgressRules(undefined, false)).toEqual({ rules: closed, mistakes: [] })
    expect(parseEgressRules('', true)).toEqual({ rules: closed, mistakes: [] })
  })

  test('takes names, suffixes, addresses and ranges, and writes them in one form', () => {
    const text =
      'CRM.Inner., *.Corp.test bücher.example,10.0.0.7  192.168.0.0/16,fd12::/16\n::1,_dmarc.x, 10.0.0.7,0.0.0.0/0'
    expect(parseEgressRules(text, true)).toEqual({
      rules: only(
        'crm.inner',
        '*.corp.test',
        'xn--bcher-kva.example',
        '10.0.0.7/32',
        '192.168.0.0/16',
        'fd12::/16',
        '::1/128',
        '_dmarc.x',
        '0.0.0.0/0',
      ),
      mistakes: [],
    })
  })

  test('reports every mistake with what to write, and keeps the good entries', () => {
    const text =
      'http://x.test,x.test:80,10.0.0.5/8,10.0.0.0/33,*,a..b,127.1,169.254.169.254,fe80::/10,::ffff:10.0.0.1,-x,good.test'
    const { rules, mistakes } = parseEgressRules(text, false)
    expect(rules).toEqual(only('good.test'))
    expect(mistakes).toHaveLength(11)
    expect(mistakes).toContain('TARGET_ALLOW: "10.0.0.5/8" has bits behind its prefix; write 10.0.0.0/8')
    expect(mistakes).toContain('TARGET_ALLOW: "127.1" is an unusual way to write 127.0.0.1; write that')
    expect(mistakes).toContain(
      'TARGET_ALLOW: "169.254.169.254" is never reached, listed or not: a cloud metadata address',
    )
    expect(mistakes).toContain('TARGET_ALLOW: "::ffff:10.0.0.1" stands for IPv4 addresses; list those')
  })
})
