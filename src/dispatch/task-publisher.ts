import type { Broker, Message, PublishEnd } from '../broker/broker.ts'
import { addressedMessage, taskMessage } from '../broker/wire-form.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { QueuedTask } from '../task/task.ts'
import type { Destination } from '../task/topology/topology.ts'
import { type ExchangeLook, type ExchangeLookDeps, lookAtExchange } from './exchange-look.ts'

export interface TaskPublisherDeps extends ExchangeLookDeps {
  broker: Pick<Broker, 'publish'>
  log: Logger
  /** Says that the broker does not route to a queue as it was told to. */
  onMissing(queue: string): void
  /** Says that the broker does not let this node publish there. */
  onRefused(destination: Destination): void
}

/** As of the broker, or `undeclared`: its exchange is not to be published to now. */
export type TaskEnd = PublishEnd | 'undeclared'

type Addressed = QueuedTask & { exchange: string }
type Looked = ExchangeLook | 'gone' | 'undeclared'

/**
 * Publishes queued tasks, and tells how each ended. The first attempt of a task that went to the
 * one queue of an exchange travels through that exchange, so that queues which Longshore does not know get their copy
 * (PROTOCOL 21); where it may not reach its own queue so, it goes there by itself as well, and its fence lets one of them.
 */
export function createTaskPublisher(deps: TaskPublisherDeps): (tasks: QueuedTask[]) => Promise<TaskEnd[]> {
  const { broker, log } = deps

  async function look(tasks: Addressed[]): Promise<Map<string, Looked>> {
    const looks = new Map<string, Looked>()
    for (const [exchange, some] of Map.groupBy(tasks, (task) => task.exchange)) {
      const keys = some.map(({ routingKey }) => routingKey ?? '')
      looks.set(exchange, await lookAtExchange(deps, exchange, keys))
    }
    return looks
  }

  /** The exchanges whose bindings are still those of the look. */
  async function unchanged(looks: Map<string, Looked>): Promise<Set<string>> {
    const same = new Set<string>()
    for (const [exchange, looked] of looks)
      if (typeof looked === 'object' && (await deps.exchangeVersion(exchange)) === looked.version) same.add(exchange)
    return same
  }

  async function publishAddressed(tasks: Addressed[]): Promise<TaskEnd[]> {
    const looks = await look(tasks)
    const ready = tasks.filter(({ exchange }) => looks.get(exchange) !== 'undeclared')
    const through = ready.filter(({ exchange }) => looks.get(exchange) !== 'gone')
    const ends = await endsOf(broker, through, addressedMessage)
    const refused = new Set(through.filter((task) => ends.get(task) === 'refused').map(({ exchange }) => exchange))
    for (const name of refused) deps.onRefused({ kind: 'exchange', name })
    const same = await unchanged(looks)
    const arrived = (task: Addressed) => {
      const looked = looks.get(task.exchange)
      if (typeof looked !== 'object' || !looked.reaches(task.queue, task.routingKey ?? '')) return false
      if (ends.get(task) === 'returned') deps.onMissing(task.queue)
      return ends.get(task) === 'confirmed' && same.has(task.exchange)
    }
    const direct = ready.filter(
      (task) => ends.get(task) !== 'unknown' && ends.get(task) !== 'refused' && !arrived(task),
    )
    const directEnds = await endsOf(broker, direct, taskMessage)
    return tasks.map((task) => {
      const end = directEnds.get(task) ?? ends.get(task) ?? 'undeclared'
      return end === 'refused' && !directEnds.has(task) ? 'undeclared' : end
    })
  }

  return async (tasks) => {
    const addressed = tasks.filter(isAddressed)
    if (addressed.length === 0) return broker.publish(tasks.map((task) => taskMessage(task)))
    const plain = tasks.filter((task) => !isAddressed(task))
    const [plainEnds, addressedEnds] = await Promise.all([
      plain.length > 0 ? broker.publish(plain.map((task) => taskMessage(task))) : [],
      publishAddressed(addressed).catch((error): TaskEnd[] => {
        // Whether it was published or not, it may be again.
        log.warn({ event: 'exchange-not-read', error: messageOf(error) }, 'Cannot read exchanges; publishing again')
        return []
      }),
    ])
    const ends = new Map<QueuedTask, TaskEnd | undefined>()
    for (const [index, task] of plain.entries()) ends.set(task, plainEnds[index])
    for (const [index, task] of addressed.entries()) ends.set(task, addressedEnds[index])
    return tasks.map((task) => ends.get(task) ?? 'unknown')
  }
}

/** Its retries, and what is sent again for any other reason than a lost publish, go to its queue alone. */
function isAddressed(task: QueuedTask): task is Addressed {
  return typeof task.exchange === 'string' && task.attempt === 1
}

async function endsOf(
  broker: Pick<Broker, 'publish'>,
  tasks: Addressed[],
  messageOfTask: (task: Addressed) => Message,
): Promise<Map<Addressed, PublishEnd>> {
  if (tasks.length === 0) return new Map()
  const ends = await broker.publish(tasks.map((task) => messageOfTask(task)))
  return new Map(tasks.map((task, index) => [task, ends[index] ?? 'unknown']))
}
