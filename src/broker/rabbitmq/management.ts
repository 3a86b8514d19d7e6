import { messageOf } from '../../runtime/errors.ts'
import type { BrokerConnection, ReadConnections } from '../connections.ts'

const WITHIN_MS = 5_000

/** What the management API tells of a connection; one that has just been opened is told of in parts. */
interface ManagedConnection {
  name: string
  user_provided_name?: string
  peer_host?: string
  peer_port?: number
  user?: string
  /** Milliseconds since 1970. */
  connected_at?: number
  channels?: number
  client_properties?: { product?: string; version?: string; connection_name?: string }
}

const COLUMNS = [
  ...['name', 'user_provided_name', 'peer_host', 'peer_port', 'user', 'connected_at', 'channels'],
  ...['client_properties.product', 'client_properties.version', 'client_properties.connection_name'],
].join(',')

/** Users with one of them see the connections of everybody (https://www.rabbitmq.com/docs/management#permissions); others only their own, and no error. */
const SEE_ALL = ['monitoring', 'administrator']

/** Reads the connections of `vhost` from RabbitMQ's management API at `url`. Rejects without a word of the password. */
export function createManagement(url: string, vhost: string): ReadConnections {
  const { origin, pathname, username, password } = new URL(url)
  const credentials = `${decodeURIComponent(username) || 'guest'}:${decodeURIComponent(password) || 'guest'}`
  const authorization = `Basic ${Buffer.from(credentials).toString('base64')}`
  const place = `${origin}${pathname.replace(/\/+$/, '')}`
  async function ask<T>(path: string): Promise<T> {
    const response = await fetch(`${place}/api/${path}`, {
      headers: { authorization },
      redirect: 'error',
      signal: AbortSignal.timeout(WITHIN_MS),
    }).catch((error: unknown) => {
      throw new Error(`${place} does not answer: ${messageOf(error)}`)
    })
    if (response.status === 401)
      throw new Error(`${place} does not let this user in (is RABBITMQ_MANAGEMENT_URL right?)`)
    if (!response.ok) throw new Error(`${place} answers ${response.status}`)
    return (await response.json()) as T
  }
  return async () => {
    const [{ tags }, managed] = await Promise.all([
      ask<{ tags: string[] }>('whoami'),
      ask<ManagedConnection[]>(`vhosts/${encodeURIComponent(vhost)}/connections?columns=${COLUMNS}`),
    ])
    const reason = tags.some((tag) => SEE_ALL.includes(tag))
      ? null
      : 'The user of RABBITMQ_MANAGEMENT_URL has neither the tag "monitoring" nor "administrator": it sees its own connections only'
    return { connections: managed.map(connectionOf), reason }
  }
}

function connectionOf(managed: ManagedConnection): BrokerConnection {
  const { peer_host: host, peer_port: port, connected_at: at, client_properties: client } = managed
  return {
    name: managed.user_provided_name ?? client?.connection_name ?? managed.name,
    // The broker's own name begins with it.
    peer: host === undefined ? (managed.name.split(' ')[0] ?? '') : `${host}:${port}`,
    user: managed.user ?? null,
    client: client?.product ? [client.product, client.version].join(' ').trim() : null,
    since: at === undefined ? null : new Date(at).toISOString(),
    channels: managed.channels ?? 0,
  }
}
