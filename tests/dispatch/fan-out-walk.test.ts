import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { v7 } from 'uuid'
import { identityOf } from '../../src/broker/wire-form.ts'
import { readAccounting } from '../../src/store/accounting.ts'
import { returnLostPublishes } from '../../src/store/tasks/at-broker/lost-publishes.ts'
import { cancelTasks } from '../../src/store/tasks/cancel.ts'
import { claimDeliveries } from '../../src/store/tasks/claim/claim-deliveries.ts'
import { replayTasks } from '../../src/store/tasks/dead-letters/replay.ts'
import { insertTasks } from '../../src/store/tasks/insert/insert.ts'
import { readTopology } from '../../src/store/topology/topology.ts'
import type { DeliveryClaim } from '../../src/task/ledger.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import { lineOf } from '../../src/task/topology/exchange.ts'
import { ENGINES } from '../support/database.ts'
import { addressed, addressing, bind, makeExchange } from '../support/exchanges.ts'
import { routingBroker } from '../support/routing-broker.ts'
import { DEAD, FAILED, LOST, miscounted, RETURNED, SUCCEEDED, type TaskLedger, taskLedger } from '../support/tasks.ts'
import { type ClusterNode, NO_FAULTS, seeded, startClusterNode } from './fan-out-cluster.ts'

const QUEUES = ['a', 'b', 'c', 'd']
const KEYS = ['x', 'x.y', 'z']
const PATTERNS = ['x', 'x.y', '*', '#', 'x.#', 'z']
const EXCHANGES = { topic: 'topic', direct: 'direct', fanout: 'fanout' } as const
const FAULTS = { crash: 0.03, statement: 0.04, unknown: 0.08, between: 0.2 }
const STEPS = 140

describe.each(ENGINES)('21: random fan-outs with crashes on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  }, 60_000)
  afterEach(() => ledger.clear())
  afterAll(() => ledger.test.drop())

  async function walk(random: () => number) {
    const { pool } = ledger
    const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T
    const rabbit = routingBroker()
    const { control } = rabbit
    /** Of each submitted task: the queues that it was routed to. */
    const submitted = new Map<string, string[]>()
    const nodes: ClusterNode[] = []

    for (const [name, type] of Object.entries(EXCHANGES)) {
      const bindings = Object.fromEntries(QUEUES.map((queue) => [queue, random() < 0.6 ? [pick(PATTERNS)] : []]))
      await makeExchange(ledger, name, type, bindings)
      control.exchanges.set(name, type)
      // A queue that Longshore does not know; it is bound to all but one of them.
      if (type !== 'direct') control.bind(name, 'foreign', type === 'topic' ? '#' : '')
    }
    for (const queue of QUEUES) control.queues.set(queue, [])

    async function submit() {
      const tasks = Array.from({ length: 1 + Math.floor(random() * 3) }, () =>
        addressed(pick(Object.values(EXCHANGES)), { routingKey: pick(KEYS), priority: Math.floor(random() * 3) }),
      )
      for (const answer of await insertTasks(pool, ledger.node, tasks, { addressing: addressing('rabbitmq') })) {
        if (answer.kind !== 'created') expect(answer).toMatchObject({ kind: 'refused', code: 'unroutable' })
        else {
          const { queue = '', children = [] } = answer.placed ?? {}
          submitted.set(answer.id, children.length > 0 ? children.map((child) => child.queue) : [queue])
        }
      }
    }

    /** Takes what a queue holds, as a worker does; some deliveries come twice. */
    async function consume(queue: string, settleWith: () => Outcome) {
      const messages = control.queues.get(queue)?.splice(0, 3) ?? []
      if (messages.length === 0) return
      if (random() < 0.2) control.queues.get(queue)?.push(messages[0] as (typeof messages)[number])
      const deliveries = messages.map((message): DeliveryClaim => {
        const identity = identityOf(message)
        if (identity.kind === 'foreign') throw new Error('a message of nobody')
        return identity
      })
      const answers = await claimDeliveries(pool, { claimId: v7(), node: ledger.node, queue, deliveries })
      for (const answer of answers) {
        expect(answer.kind).not.toBe('unknown')
        if (answer.kind === 'claimed') await ledger.settle(answer.task, settleWith())
      }
    }

    async function changeBindings(exchange?: string) {
      const { bindings } = await readTopology(pool)
      const one = pick(exchange ? bindings.filter((binding) => binding.exchange === exchange) : bindings)
      if (random() < 0.5 && one) {
        // As the API does: the row first, then the broker.
        await pool.query('delete from bindings where exchange = $1 and queue = $2 and routing_key = $3', [
          one.exchange,
          one.queue,
          one.routingKey,
        ])
        control.unbind(one.exchange, one.queue, one.routingKey)
        return
      }
      await bind(ledger, pick(Object.values(EXCHANGES)), pick(QUEUES), pick(PATTERNS)).catch(() => {})
    }

    const known = () => pick([...submitted.keys()])
    const living = () => nodes.filter((node) => node.alive())
    const exchangeLines = Object.values(EXCHANGES).map(lineOf)
    const lines = [...QUEUES, ...exchangeLines]
    const outcomes: Outcome[] = [SUCCEEDED, SUCCEEDED, SUCCEEDED, FAILED, DEAD, RETURNED, LOST]
    const operations: [number, () => Promise<unknown>][] = [
      [0.2, submit],
      [0.54, async () => pick(living())?.dispatch(pick(random() < 0.6 ? exchangeLines : QUEUES))],
      [0.74, () => consume(pick(QUEUES), () => pick(outcomes))],
      [0.86, async () => pick(living())?.refresh()],
      [0.89, () => changeBindings()],
      [0.92, async () => submitted.size > 0 && cancelTasks(pool, [known()])],
      [0.95, async () => submitted.size > 0 && replayTasks(pool, [known()])],
      [1, () => returnLostPublishes(pool, 10)],
    ]
    /** While a node is at work others are, too. */
    const meanwhile = (exchange?: string) =>
      random() < 0.7 ? changeBindings(exchange) : consume(pick(QUEUES), () => SUCCEEDED)
    async function step() {
      while (living().length < 2) {
        const node = await startClusterNode(ledger, rabbit, random, FAULTS, meanwhile)
        await node.refresh()
        nodes.push(node)
      }
      const draw = random()
      await operations.find(([below]) => draw < below)?.[1]()
    }

    /** All nodes are gone; one that nothing happens to does what is left. */
    async function finish() {
      for (const node of living()) await pool.query('update nodes set dead_at = now() where id = $1', [node.id])
      const last = await startClusterNode(ledger, rabbit, random, NO_FAULTS)
      await last.refresh()
      for (let round = 0; round < 60; round++) {
        await returnLostPublishes(pool, 1_000)
        for (const line of lines) await last.dispatch(line)
        for (const queue of QUEUES) while (control.queues.get(queue)?.length) await consume(queue, () => SUCCEEDED)
        const { live } = await readAccounting(ledger.test.database.db)
        if (live === 0) return
      }
      const { rows } = await pool.query(
        `select id, queue, status, attempt, sealed, publisher, publish_no, parent_id, exchange, routing_key from tasks
         where status not in ('succeeded', 'dead', 'cancelled')`,
      )
      throw new Error(`Tasks are stranded: ${JSON.stringify(rows, null, 1)}`)
    }

    return { step, finish, submitted, control }
  }

  test.each([1, 2, 3, 4, 5, 6])(
    'walk %i: every bound queue got its child once, counters agree, and foreign queues got their copy',
    async (seed) => {
      const { step, finish, submitted, control } = await walk(seeded(seed))
      for (let i = 0; i < STEPS; i++) {
        await step()
        expect(await miscounted(ledger.pool)).toEqual([])
      }
      await finish()

      expect(await miscounted(ledger.pool)).toEqual([])
      const accounting = await readAccounting(ledger.test.database.db)
      expect(accounting).toMatchObject({ unaccounted: 0, live: 0 })
      const { rows } = await ledger.pool.query<{
        id: string
        children: string[]
        cancelled: boolean
        via: string
        queue: string
      }>(
        `select p.id, p.queue, p.exchange as via, p.status = 'cancelled' or p.cancel_requested as cancelled,
           array(select c.queue from tasks c where c.parent_id = p.id order by 1) as children
         from tasks p where p.exchange is not null`,
      )
      expect(rows.map(({ id }) => id).sort()).toEqual([...submitted.keys()].sort())
      for (const { id, queue, children } of rows) {
        const routed = submitted.get(id) as string[]
        expect(new Set(children).size).toBe(children.length)
        // Others may have come since, with bindings that it did not know.
        if (routed.length === 1) expect([queue, children.includes(queue)]).toEqual([routed[0] as string, false])
        else expect(children).toEqual(expect.arrayContaining(routed))
      }
      const copied = new Set((control.queues.get('foreign') ?? []).map((message) => message.properties.messageId))
      const missed = rows.filter(({ id, via, cancelled }) => via !== 'direct' && !cancelled && !copied.has(id))
      expect(missed).toEqual([])
    },
    180_000,
  )
})
