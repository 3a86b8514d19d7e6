import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { readFile } from 'node:fs/promises'
import { createServer, type Server, type Socket } from 'node:net'
import { BrokerUnavailable } from '../../src/broker/broker.ts'
import { pause, realClock } from '../../src/runtime/clock.ts'
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { type RabbitMqServer, startRabbitMqServer } from '../support/rabbitmq-server.ts'
import { type TestAuthority, testAuthority } from '../support/test-authority.ts'
import { until } from '../support/until.ts'
import { type BrokerUnderTest, brokerAt, declareQueue, isUp, messagesTo, taker } from './rabbitmq-under-test.ts'

const SECRET = 'a%3Asecret%2Fpassword'

/** Waits for the reason why there is no connection. */
async function refusal(under: BrokerUnderTest): Promise<string | null> {
  await until(() => under.log.some(({ event }) => event === 'broker-down'))
  expect(under.broker.state()).toMatchObject({ status: 'down', connections: [] })
  return under.broker.state().reason
}

describe.if(HAS_RABBITMQ)('a connection to RabbitMQ', () => {
  let vhost: TestVhost
  let place: string
  beforeAll(async () => {
    vhost = await testVhost()
    place = new URL(vhost.amqpUrl).host
  })
  afterAll(() => vhost?.remove())

  const urlWith = (changes: Partial<Pick<URL, 'username' | 'password' | 'pathname' | 'host'>>) =>
    Object.assign(new URL(vhost.amqpUrl), changes).href

  test('a wrong password is told without it', async () => {
    await using under = await brokerAt(urlWith({ password: SECRET }))
    expect(await refusal(under)).toBe(
      `the broker at ${place} refuses the user "guest" (are name and password in AMQP_URL right?)`,
    )
    await until(() => under.log.filter(({ event }) => event === 'broker-down').length > 4)
    const said = under.text() + JSON.stringify(under.broker.state())
    for (const secret of [SECRET, decodeURIComponent(SECRET), 'amqp://']) expect(said).not.toContain(secret)
  })

  test('an unknown vhost is told', async () => {
    await using under = await brokerAt(urlWith({ pathname: '/no%2Fsuch' }))
    expect(await refusal(under)).toBe(`the broker at ${place} has no vhost "no/such"`)
  })

  test('a vhost that the user may not enter is told', async () => {
    await vhost.manage('PUT', `/users/stranger-${vhost.name}`, { password: 'x', tags: '' })
    await using under = await brokerAt(urlWith({ username: `stranger-${vhost.name}`, password: 'x' }))
    expect(await refusal(under)).toBe(
      `the broker at ${place} does not let the user "stranger-${vhost.name}" into the vhost "${vhost.name}"`,
    )
    await vhost.manage('DELETE', `/users/stranger-${vhost.name}`)
  })

  test('an unknown host and a port that refuses are told', async () => {
    await using nowhere = await brokerAt('amqp://no-such-host.invalid')
    expect(await refusal(nowhere)).toBe('nobody knows the host no-such-host.invalid (is AMQP_URL right?)')
    await using closed = await brokerAt('amqp://127.0.0.1:1')
    expect(await refusal(closed)).toBe('the broker at 127.0.0.1:1 refuses connections (is AMQP_URL right?)')
  })

  test('a server that is no RabbitMQ, and TLS where there is none, are told', async () => {
    const server: Server = createServer((socket) => socket.end('220 ftp\r\n'))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const { port } = server.address() as { port: number }
    await using other = await brokerAt(`amqp://127.0.0.1:${port}`)
    expect(await refusal(other)).toContain(`the connection to the broker at 127.0.0.1:${port} ended`)
    await using tls = await brokerAt(urlWith({}).replace('amqp:', 'amqps:'))
    expect(await refusal(tls)).toContain(`the broker at ${place} does not speak TLS there`)
    server.close()
  })

  test('hosts are tried in turn until one answers', async () => {
    await using under = await brokerAt(['amqp://127.0.0.1:1', 'amqp://127.0.0.1:2', vhost.amqpUrl])
    await isUp(under.broker)
    expect(under.broker.state().connections.map(({ host }) => host)).toEqual([place, place])
  })

  test('the broker shows our connections under their names', async () => {
    await using under = await brokerAt(vhost.amqpUrl, { name: 'longshore node-1' })
    await isUp(under.broker)
    const names = under.broker.state().connections.map(({ name }) => name)
    expect(names).toEqual(['longshore node-1 publish', 'longshore node-1 consume'])
    const areShown = async () => {
      const shown = await vhost.manage<{ user_provided_name?: string }[]>('GET', `/vhosts/${vhost.name}/connections`)
      return names.every((name) => shown.some((one) => one.user_provided_name === name))
    }
    // It tells of a new connection after seconds.
    await until(areShown, { what: 'both connections', timeoutMs: 40_000 })
  }, 60_000)

  describe('through a proxy', () => {
    let proxy: FaultProxy
    let throughProxy: string
    beforeAll(async () => {
      const { hostname, port } = new URL(vhost.amqpUrl)
      proxy = await startFaultProxy({ host: hostname, port: Number(port) })
      throughProxy = urlWith({ host: `127.0.0.1:${proxy.port}` })
    })
    afterAll(() => proxy?.[Symbol.asyncDispose]())

    test('a frozen link is noticed within two heartbeats, also while publishes go on, and replaced', async () => {
      await using under = await brokerAt(throughProxy, { heartbeatSeconds: 2 })
      const { broker } = under
      await isUp(broker)
      await declareQueue(broker, { name: 'frozen' })
      const { taken, handle } = taker('ack')
      broker.consume('frozen', 10, handle)
      expect(await broker.publish(messagesTo('frozen', 1))).toEqual(['confirmed'])
      proxy.setFault({ kind: 'hang', afterBytes: 0 })
      const began = performance.now()
      const pending: Promise<unknown>[] = []
      await until(
        () => {
          pending.push(broker.publish(messagesTo('frozen', 1, 1)))
          return broker.state().status === 'down'
        },
        { timeoutMs: 15_000 },
      )
      // Two heartbeats are four seconds: a slow machine gets as many again.
      expect(performance.now() - began).toBeLessThan(8_000)
      expect(broker.state().reason).toContain('it gave no sign of life for 3 s')
      proxy.cutAll()
      proxy.setFault({ kind: 'none' })
      await isUp(broker)
      const ends = (await Promise.all(pending)).flat()
      // In flight: unknown. In line, should there have been so many: published now.
      expect(ends).toContain('unknown')
      expect(ends).not.toContain('returned')
      expect(await broker.publish(messagesTo('frozen', 1, 2))).toEqual(['confirmed'])
      await until(() => taken.length >= 2 + ends.filter((end) => end === 'confirmed').length)
    }, 60_000)

    test('a link that is cut is replaced, and what was unsettled comes again, marked as redelivered', async () => {
      await using under = await brokerAt(throughProxy)
      const { broker } = under
      await isUp(broker)
      await declareQueue(broker, { name: 'cut' })
      const { taken, bodies, handle, end } = taker()
      broker.consume('cut', 2, handle)
      await broker.publish(messagesTo('cut', 3))
      await until(() => taken.length === 2)
      end(0)
      // The server gives the third for the ack of the first: it has that one.
      await until(() => taken.length === 3)
      proxy.cutAll()
      // Its channel is gone: nobody hears of it, and nothing breaks.
      end(1)
      await until(() => taken.length === 5)
      expect(bodies().slice(3).sort()).toEqual(['1', '2'])
      expect(taken.map(({ redelivered }) => redelivered)).toEqual([false, false, false, true, true])
      end(3)
      end(4)
    })

    test('a removal whose connection ends under it is done on the next one; an outage is told', async () => {
      await using under = await brokerAt(throughProxy)
      const { broker } = under
      await isUp(broker)
      await declareQueue(broker, { name: 'leaving' })
      proxy.setFault({ kind: 'hang', afterBytes: 0 })
      const before = proxy.forwarded['from-client']
      const removal = { kind: 'queue', name: 'leaving', ifEmpty: false, ifUnused: false } as const
      const removed = broker.remove(removal)
      expect(await Promise.race([removed, pause(realClock, 200).then(() => 'no answer')])).toBe('no answer')
      expect(proxy.forwarded['from-client']).toBe(before)
      proxy.setFault({ kind: 'none' })
      proxy.cutAll()
      expect(await removed).toBe('removed')
      expect(await broker.inspect('leaving')).toBeUndefined()
      proxy.setFault({ kind: 'hang', afterBytes: 0 })
      const asked = broker.remove(removal)
      proxy.setFault({ kind: 'refuse' })
      proxy.cutAll()
      await expect(asked).rejects.toThrow(BrokerUnavailable)
      proxy.setFault({ kind: 'none' })
    }, 60_000)

    test('a quiet link stays up', async () => {
      await using under = await brokerAt(throughProxy, { heartbeatSeconds: 2 })
      await isUp(under.broker)
      const { since } = under.broker.state()
      // Three times what a link may be silent: the server sends heartbeats, and gets ours.
      const began = performance.now()
      await until(() => performance.now() - began > 9_000)
      expect(under.broker.state()).toMatchObject({ status: 'up', since })
    })
  })

  test('stop returns while deliveries are out that nobody ends, and they go back', async () => {
    const under = await brokerAt(vhost.amqpUrl)
    await isUp(under.broker)
    await declareQueue(under.broker, { name: 'stopped' })
    const { taken, handle } = taker()
    const cancelled = under.broker.consume('stopped', 2, handle)
    under.broker.consume('stopped', 2, handle)
    await under.broker.publish(messagesTo('stopped', 4))
    await until(() => taken.length === 4)
    cancelled.cancel()
    await until(async () => (await under.broker.inspect('stopped'))?.consumers === 1)
    const began = performance.now()
    await under.broker.stop()
    expect(performance.now() - began).toBeLessThan(5_000)
    expect(await under.broker.publish(messagesTo('stopped', 1))).toEqual(['unknown'])
    await using other = await brokerAt(vhost.amqpUrl)
    await isUp(other.broker)
    await until(async () => (await other.broker.inspect('stopped'))?.messages === 4)
  })

  test('stop leaves no connection, also while it still connects', async () => {
    const open = new Set<Socket>()
    const silent: Server = createServer((socket) => {
      open.add(socket.on('error', () => {}).on('close', () => open.delete(socket)))
      socket.resume()
    })
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    const { port } = silent.address() as { port: number }
    const under = await brokerAt(`amqp://127.0.0.1:${port}`)
    await until(() => open.size === 2)
    const began = performance.now()
    await under.broker.stop()
    // Connecting is given up by itself after ten seconds.
    expect(performance.now() - began).toBeLessThan(5_000)
    await until(() => open.size === 0)
    silent.close()
  })
})

describe.if(HAS_RABBITMQ)('a RabbitMQ that wants TLS', () => {
  let authority: TestAuthority
  let stranger: TestAuthority
  let server: RabbitMqServer
  beforeAll(async () => {
    authority = await testAuthority()
    stranger = await testAuthority()
    const { cert, key } = await authority.issue('localhost')
    server = await startRabbitMqServer({ tls: { ca: authority.caFile, cert, key } })
  }, 90_000)
  afterAll(async () => {
    await server?.[Symbol.asyncDispose]()
    await authority?.remove()
    await stranger?.remove()
  })

  test('is connected with its own authority', async () => {
    await using under = await brokerAt(server.amqpsUrl, { ca: await readFile(authority.caFile, 'utf8') })
    await isUp(under.broker)
    await declareQueue(under.broker)
    expect(await under.broker.publish(messagesTo('work', 1))).toEqual(['confirmed'])
  })

  test('is refused with another authority, with the public ones, and under a name that it has no certificate for', async () => {
    await using wrong = await brokerAt(server.amqpsUrl, { ca: await readFile(stranger.caFile, 'utf8') })
    expect(await refusal(wrong)).toMatch(
      /the certificate of the broker at localhost:\d+ is not accepted: .*\(is AMQP_CA_FILE right\?\)/,
    )
    await using none = await brokerAt(server.amqpsUrl)
    expect(await refusal(none)).toContain('is not accepted')
    const byAddress = server.amqpsUrl.replace('localhost', '127.0.0.1')
    await using name = await brokerAt(byAddress, { ca: await readFile(authority.caFile, 'utf8') })
    expect(await refusal(name)).toContain('is not accepted')
  })

  test('a parameter in the URL does not switch the check off', async () => {
    await using under = await brokerAt(`${server.amqpsUrl}/?insecure=true`)
    expect(await refusal(under)).toContain('is not accepted')
  })
})
