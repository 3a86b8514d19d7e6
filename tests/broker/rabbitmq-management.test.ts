import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { AMQPClient } from '@cloudamqp/amqp-client'
import { createManagement } from '../../src/broker/rabbitmq/management.ts'
import { HAS_RABBITMQ, type TestVhost, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'

describe.if(HAS_RABBITMQ)('the management API', () => {
  let vhost: TestVhost
  let foreign: AMQPClient
  const users: string[] = []
  beforeAll(async () => {
    vhost = await testVhost()
    foreign = new AMQPClient(`${vhost.amqpUrl}?frameMax=131072&name=somebody`)
    await foreign.connect()
  })
  afterAll(async () => {
    await foreign.close()
    for (const user of users) await vhost.manage('DELETE', `/users/${user}`)
    await vhost.remove()
  })

  /** What a user with this tag reads. */
  async function readerWith(tag: string) {
    const user = `${vhost.name}-${tag}`
    users.push(user)
    await vhost.manage('PUT', `/users/${user}`, { password: 'secret', tags: tag })
    await vhost.manage('PUT', `/permissions/${vhost.name}/${user}`, { configure: '', write: '', read: '' })
    const url = new URL(vhost.managementUrl)
    url.username = user
    url.password = 'secret'
    return createManagement(url.href, vhost.name)
  }

  for (const tag of ['monitoring', 'administrator']) {
    test(`shows all connections to a user with the tag ${tag}`, async () => {
      const read = await readerWith(tag)
      // It tells of a new connection after seconds.
      const all = async () => {
        const { connections, reason } = await read()
        expect(reason).toBeNull()
        return connections.some(({ name, user }) => name === 'somebody' && user === 'guest')
      }
      await until(all, { what: 'the connection in full', timeoutMs: 40_000 })
    }, 60_000)
  }

  for (const tag of ['management', 'policymaker']) {
    test(`says that a user with the tag ${tag} sees its own only`, async () => {
      const read = await readerWith(tag)
      expect(await read()).toEqual({ connections: [], reason: expect.stringContaining('"monitoring"') })
    })
  }
})
