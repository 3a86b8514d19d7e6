import { randomBytes } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { messageOf } from '../../src/runtime/errors.ts'
import { startRabbitMqServer } from './rabbitmq-server.ts'
import { until } from './until.ts'

/*
 * The RabbitMQ that ordinary tests of a run share: the one of scripts/test.ts (TEST_AMQP_URL, TEST_RABBITMQ_MANAGEMENT_URL),
 * else one of this process, started when first needed.
 */

/** Both kinds of broker that the product runs on (or those that scripts/test.ts found). */
export const BROKERS = (['in-process', 'rabbitmq'] as const).filter(
  (kind) => process.env.TEST_BROKERS === undefined || process.env.TEST_BROKERS.split(',').includes(kind),
)
/** Whether tests that need a RabbitMQ run; without scripts/test.ts always. */
export const HAS_RABBITMQ = BROKERS.includes('rabbitmq')

export interface SharedRabbitMq {
  /** Vhost `/`; its user may do everything. */
  amqpUrl: string
  managementUrl: string
}

/** A vhost of the shared RabbitMQ for one test or file, so that they run side by side. */
export interface TestVhost extends AsyncDisposable {
  readonly name: string
  readonly amqpUrl: string
  readonly managementUrl: string
  /** Calls the management API, `path` beginning below /api, and gives the JSON; rejects when the answer is not 2xx. */
  manage<T = unknown>(method: string, path: string, body?: unknown): Promise<T>
  /**
   * Publishes to a queue as a client that knows nothing of Longshore; resolves when the queue has it. One that is not there yet,
   * or whose leader is not, takes nothing: it is tried again.
   */
  publish(queue: string, body: string | Uint8Array, properties?: Record<string, unknown>): Promise<void>
  /** A user who may configure and read everything here, and write what the pattern matches; goes with the vhost. */
  writer(write: string): Promise<Writer>
  /** Removes it with all that is in it; its connections are closed. */
  remove(): Promise<void>
}

export interface Writer {
  readonly amqpUrl: string
  /** Changes what it may write. */
  allow(write: string): Promise<void>
}

/** Makes a vhost; throws when there is no RabbitMQ. */
export async function testVhost(): Promise<TestVhost> {
  const { amqpUrl, managementUrl } = await sharedRabbitMq()
  const name = `test-${randomBytes(6).toString('hex')}`
  const user = decodeURIComponent(new URL(amqpUrl).username)
  const manage = <T>(method: string, path: string, body?: unknown) =>
    callManagement<T>(managementUrl, method, path, body)
  await manage('PUT', `/vhosts/${name}`)
  await manage('PUT', `/permissions/${name}/${encodeURIComponent(user)}`, { configure: '.*', write: '.*', read: '.*' })
  const url = new URL(amqpUrl)
  url.pathname = `/${name}`
  const users: string[] = []
  async function remove(): Promise<void> {
    await manage('DELETE', `/vhosts/${name}`)
    for (const one of users) await manage('DELETE', `/users/${one}`)
  }
  async function writer(write: string): Promise<Writer> {
    const own = new URL(url)
    own.username = `${name}-${users.length}`
    own.password = 'a-writer'
    await manage('PUT', `/users/${own.username}`, { password: own.password, tags: '' })
    users.push(own.username)
    const allow = (pattern: string) =>
      manage<void>('PUT', `/permissions/${name}/${own.username}`, { configure: '.*', write: pattern, read: '.*' })
    await allow(write)
    return { amqpUrl: own.href, allow }
  }
  async function publish(queue: string, body: string | Uint8Array, properties = {}): Promise<void> {
    const payload = { payload: Buffer.from(body).toString('base64'), payload_encoding: 'base64' }
    const message = { routing_key: queue, properties, ...payload }
    const isTaken = async () => {
      try {
        const { routed } = await manage<{ routed: boolean }>('POST', `/exchanges/${name}/amq.default/publish`, message)
        return routed
      } catch (error) {
        if (messageOf(error).includes('Unable to publish message')) return false
        throw error
      }
    }
    await until(isTaken, { what: `queue ${queue} to take a message` })
  }
  return { name, amqpUrl: url.href, managementUrl, manage, publish, writer, remove, [Symbol.asyncDispose]: remove }
}

/** Calls RabbitMQ's management API; rejects when the answer is not 2xx. */
export async function callManagement<T = unknown>(
  managementUrl: string,
  method: string,
  path: string,
  body?: unknown,
): Promise<T> {
  const url = new URL(managementUrl)
  const authorization = `Basic ${btoa(`${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`)}`
  const response = await fetch(`${url.origin}/api${path}`, {
    method,
    headers: { authorization, 'content-type': 'application/json' },
    body: body === undefined ? null : JSON.stringify(body),
  })
  const text = await response.text()
  if (!response.ok) throw new Error(`${method} /api${path}: ${response.status} ${text}`)
  return (text === '' ? undefined : JSON.parse(text)) as T
}

let shared: Promise<SharedRabbitMq> | undefined

/** Where the shared RabbitMQ is; starts it when there is none yet. It ends with this process. */
export function sharedRabbitMq(): Promise<SharedRabbitMq> {
  const { TEST_AMQP_URL: amqpUrl, TEST_RABBITMQ_MANAGEMENT_URL: managementUrl } = process.env
  if (amqpUrl && managementUrl) return Promise.resolve({ amqpUrl, managementUrl })
  shared ??= startShared()
  return shared
}

/** One for all files of this process, each of which has modules of its own: they meet in a folder. */
async function startShared(): Promise<SharedRabbitMq> {
  const folder = `/var/tmp/longshore-test-rabbitmq-${process.pid}`
  const urls = join(folder, 'urls')
  if (!existsSync(folder)) {
    await mkdir(folder)
    const { amqpUrl, managementUrl } = await startRabbitMqServer({ folder })
    await writeFile(join(folder, 'draft'), JSON.stringify({ amqpUrl, managementUrl }))
    await rename(join(folder, 'draft'), urls)
  }
  const text = await until(() => readFile(urls, 'utf8').catch(() => undefined), { timeoutMs: 60_000, what: urls })
  return JSON.parse(text)
}
