import { Problem } from '../../../runtime/errors.ts'
import type { Logger, Secret } from '../../../runtime/log.ts'
import type { Database } from '../../../store/database/database.ts'
import { type Consumer, updateConsumer } from '../../../store/topology/consumers.ts'
import type { HttpTarget } from '../../../task/target/target.ts'
import { allConsumers } from './all-consumers.ts'

/** Where consumers made by POST /createConsumer deliver (PROCESS_ORDER_URL, SECRET_KEY). */
export interface OrderApi {
  url: string | undefined
  secret: Secret | undefined
}

/** The target of the consumer `id`: a form to the order API, which knows the fields of an order by other names. */
export function orderTarget({ url, secret }: OrderApi, id: string, checkUrl: (url: string) => string | undefined) {
  if (url === undefined)
    throw new Problem('unknown-target', 'There is nowhere to deliver to: PROCESS_ORDER_URL is not set on this node')
  const reason = checkUrl(url)
  if (reason !== undefined) throw new Problem('unknown-target', `PROCESS_ORDER_URL cannot be delivered to: ${reason}`)
  return {
    type: 'http',
    url,
    format: 'form',
    rename: { clientId: 'client_id', shipmentPackageId: 'shipment_package_id' },
    together: ['clientId', 'shipmentPackageId'],
    fields: { consumerId: id, ...(secret && { secret_key: secret.reveal() }) },
  } satisfies HttpTarget
}

export interface FollowDeps {
  checkUrl(url: string): string | undefined
  log: Logger
}

/**
 * Brings consumers that were made before to what holds now: the URL, and the secret or none. They are the ones that send their
 * own id. Without a URL the one before stays; with neither URL nor secret, or with a URL that cannot be delivered to, all does:
 * a secret goes to no other URL than the one beside it. Gives how many it changed.
 */
export async function followOrderApi(
  db: Database['db'],
  api: OrderApi,
  { checkUrl, log }: FollowDeps,
): Promise<number> {
  if (api.url === undefined && !api.secret) return 0
  const reason = api.url === undefined ? undefined : checkUrl(api.url)
  if (reason !== undefined) {
    log.warn(
      { event: 'order-url-refused', error: reason },
      'PROCESS_ORDER_URL cannot be delivered to: consumers of orders stay as they are',
    )
    return 0
  }
  let changed = 0
  for (const consumer of await allConsumers(db)) {
    const target = orderTargetOf(consumer)
    if (!target || isUpToDate(target, api)) continue
    await updateConsumer(db, consumer.id, { target: following(target, api) })
    changed++
  }
  return changed
}

function orderTargetOf({ id, target }: Consumer): HttpTarget | undefined {
  return target.type === 'http' && target.fields?.consumerId === id ? target : undefined
}

function isUpToDate(target: HttpTarget, { url = target.url, secret }: OrderApi): boolean {
  return target.url === url && target.fields?.secret_key === secret?.reveal()
}

function following(target: HttpTarget, { url = target.url, secret }: OrderApi): HttpTarget {
  const { secret_key: _, ...fields } = target.fields ?? {}
  return { ...target, url, fields: { ...fields, ...(secret && { secret_key: secret.reveal() }) } }
}
