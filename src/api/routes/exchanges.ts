import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import type { Broker } from '../../broker/broker.ts'
import { invalid, Problem } from '../../runtime/errors.ts'
import type { Database } from '../../store/database/database.ts'
import { deleteExchange, exchangeByName, listExchanges, putExchange } from '../../store/topology/exchanges.ts'
import { ExchangeNameSchema } from '../../task/topology/topology.ts'
import type { Access } from '../access.ts'
import { readBody } from '../body.ts'
import { describe } from '../openapi/describe.ts'
import { DEFAULT_LIMIT, PageOf, PageQuery, pageOf, placeOf } from '../page.ts'
import { noContent } from '../response.ts'
import { checked, readQuery } from '../validation.ts'
import { EXCHANGE_EXAMPLE, ExchangeBody, ExchangeSchema, exchangeJson } from './exchanges/schema.ts'

export interface ExchangeDeps {
  db: Database['db']
  /** What is taken away goes there first; rejects with BrokerUnavailable. */
  broker: Pick<Broker, 'remove'>
  /** Called after every change, so that this node follows it at once. */
  topologyChanged(): void
}

export const TAG = 'Exchanges'
export const NAME = { name: ExchangeNameSchema }
const PathName = Type.Object(NAME)
const ListQuery = Type.Object(PageQuery, { additionalProperties: false })
const DeleteQuery = Type.Object(
  {
    ifUnused: Type.Optional(
      Type.Boolean({ description: 'Only without bindings; false needs `confirm`. True without `confirm`' }),
    ),
    confirm: Type.Optional(
      Type.String({ maxLength: 128, description: "The exchange's name, once more: deletes it with its bindings" }),
    ),
  },
  { additionalProperties: false },
)

/** Exchanges themselves; `exchanges/bindings.ts` has what is bound to them. */
export function exchangeRoutes(access: Access, { db, broker, topologyChanged }: ExchangeDeps) {
  const shown = async (name: string) => {
    const exchange = await exchangeByName(db, name)
    if (!exchange) throw unknownExchange(name)
    return exchangeJson(exchange)
  }

  return new Elysia({ prefix: '/exchanges' })
    .use(access)
    .get(
      '/',
      async ({ request }) => {
        const { limit = DEFAULT_LIMIT, after } = readQuery(ListQuery, request)
        const [name] = after === undefined ? [] : placeOf(after, ['string'])
        const page = pageOf(await listExchanges(db, limit + 1, name), limit, (exchange) => [exchange.name])
        return { ...page, items: page.items.map(exchangeJson) }
      },
      {
        scope: 'read',
        detail: describe({
          tag: TAG,
          summary: 'List exchanges',
          description: 'Exchanges by name, with their bindings.',
          query: ListQuery,
          responses: {
            200: ['A page of exchanges', PageOf(ExchangeSchema), { items: [EXCHANGE_EXAMPLE], next: null }],
          },
        }),
      },
    )
    .get('/:name', ({ params }) => shown(params.name), {
      scope: 'read',
      detail: describe({
        tag: TAG,
        summary: 'Read an exchange',
        description: 'An exchange with its bindings.',
        params: NAME,
        responses: { 200: ['The exchange', ExchangeSchema, EXCHANGE_EXAMPLE] },
        problems: ['not-found'],
      }),
    })
    .put(
      '/:name',
      async ({ request, params, set }) => {
        const { name } = checked(PathName, { name: params.name })
        const { type } = await readBody(ExchangeBody, request)
        const put = await putExchange(db, name, type)
        if (put === 'other-type') {
          const detail = `The exchange "${name}" is of another type than ${type}, and a type never changes: delete it first, or choose another name`
          throw new Problem('conflict', detail)
        }
        topologyChanged()
        set.status = put === 'created' ? 201 : 200
        if (put === 'created') set.headers.location = `/api/v1/exchanges/${encodeURIComponent(name)}`
        return shown(name)
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Make an exchange',
          description: 'Makes the exchange, durable, here and at RabbitMQ. The same again changes nothing.',
          params: NAME,
          body: [ExchangeBody, { type: 'topic' }],
          responses: {
            200: ['It was there already', ExchangeSchema, EXCHANGE_EXAMPLE],
            201: ['The exchange was made', ExchangeSchema, { ...EXCHANGE_EXAMPLE, bindings: [] }],
          },
          problems: ['conflict'],
        }),
      },
    )
    .delete(
      '/:name',
      async ({ request, params: { name } }) => {
        const ifUnused = readGuard(request, name)
        const exchange = await exchangeByName(db, name)
        if (!exchange) throw unknownExchange(name)
        if (ifUnused && exchange.bindings.length > 0) throw stillBound(name)
        // What the broker has otherwise is not ours to take away.
        const removed = exchange.conflict ? 'removed' : await broker.remove({ kind: 'exchange', name, ifUnused })
        if (removed === 'in-use') throw stillBound(name, ' at RabbitMQ')
        const deletion = await deleteExchange(db, name, { ifUnused })
        topologyChanged()
        if (deletion === 'has-bindings') throw stillBound(name)
        return noContent()
      },
      {
        scope: 'operate',
        detail: describe({
          tag: TAG,
          summary: 'Delete an exchange',
          description:
            'Deletes an exchange that has no bindings, at RabbitMQ, too; with `confirm` its bindings go with it. The queues stay.',
          params: NAME,
          query: DeleteQuery,
          responses: { 204: ['The exchange is gone'] },
          problems: ['not-found', 'conflict', 'broker-unavailable'],
        }),
      },
    )
}

export function unknownExchange(name: string): Problem {
  return new Problem('not-found', `There is no exchange "${name}"`)
}

function stillBound(name: string, where = ''): Problem {
  const detail = `The exchange "${name}" has bindings${where}: delete them first, or add confirm=${name}`
  return new Problem('conflict', detail)
}

/** The guard holds unless the name was given once more. */
function readGuard(request: Request, name: string): boolean {
  const { ifUnused, confirm } = readQuery(DeleteQuery, request)
  if (confirm !== undefined && confirm !== name) throw invalid('/confirm', `must be the exchange's name, "${name}"`)
  if (ifUnused === false && confirm === undefined) {
    throw invalid('/ifUnused', `may be false only with confirm=${name}`)
  }
  return ifUnused ?? confirm === undefined
}
