import { Elysia } from 'elysia'
import { invalid, Problem } from '../../../runtime/errors.ts'
import { bindQueue, exchangeByName, unbindQueue } from '../../../store/topology/exchanges.ts'
import type { Access } from '../../access.ts'
import { readBody } from '../../body.ts'
import { describe } from '../../openapi/describe.ts'
import { noContent } from '../../response.ts'
import { type ExchangeDeps, NAME, TAG, unknownExchange } from '../exchanges.ts'
import { BINDING_EXAMPLE, BindingBody, BindingSchema, routingKeyOf } from './schema.ts'

/** Which queues get what is published to an exchange. */
export function exchangeBindingRoutes(access: Access, { db, broker, topologyChanged }: ExchangeDeps) {
  return new Elysia({ prefix: '/exchanges' })
    .use(access)
    .put(
      '/:name/bindings',
      async ({ request, params: { name }, set }) => {
        const binding = await readBinding(request)
        const bound = await bindQueue(db, { exchange: name, ...binding })
        switch (bound) {
          case 'unknown-exchange':
            throw unknownExchange(name)
          case 'unknown-queue':
            throw invalid('/queue', `there is no queue "${binding.queue}"; make it first`, 'unknown-queue')
          case 'created':
          case 'existing':
            if (bound === 'created') topologyChanged()
            set.status = bound === 'created' ? 201 : 200
            return binding
          default:
            return bound satisfies never
        }
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Bind a queue to an exchange',
          description:
            'From now on the queue gets what is published to the exchange with a routing key that fits. The same again changes nothing.',
          params: NAME,
          body: [BindingBody, BINDING_EXAMPLE],
          responses: {
            200: ['It was there already', BindingSchema, BINDING_EXAMPLE],
            201: ['The binding', BindingSchema, BINDING_EXAMPLE],
          },
          problems: ['not-found', 'unknown-queue'],
        }),
      },
    )
    .delete(
      '/:name/bindings',
      async ({ request, params: { name } }) => {
        const binding = { exchange: name, ...(await readBinding(request)) }
        const exchange = await exchangeByName(db, name)
        if (!exchange) throw unknownExchange(name)
        const { queue, routingKey } = binding
        // What others have bound at the broker is theirs.
        if (!exchange.bindings.some((one) => one.queue === queue && one.routingKey === routingKey)) {
          throw new Problem('not-found', `"${queue}" is not bound to "${name}" with the routing key "${routingKey}"`)
        }
        // The row first: what is published to the exchange counts on a binding that has one.
        await unbindQueue(db, binding)
        try {
          await broker.remove({ kind: 'binding', ...binding })
        } catch (error) {
          await bindQueue(db, binding)
          throw error
        } finally {
          topologyChanged()
        }
        return noContent()
      },
      {
        scope: 'operate',
        parse: 'none',
        detail: describe({
          tag: TAG,
          summary: 'Take a binding away',
          description: 'The queue gets nothing more by this binding; what it has stays. At RabbitMQ it is gone, too.',
          params: NAME,
          body: [BindingBody, BINDING_EXAMPLE],
          responses: { 204: ['The binding is gone'] },
          problems: ['not-found', 'broker-unavailable'],
        }),
      },
    )
}

async function readBinding(request: Request): Promise<{ queue: string; routingKey: string }> {
  const { queue, routingKey } = await readBody(BindingBody, request)
  return { queue, routingKey: routingKeyOf(routingKey) }
}
