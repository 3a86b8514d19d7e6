import type { NodeProcess } from '../support/node-process.ts'
import type { Sink, SinkRequest } from '../support/sink.ts'

/** What a submitted task must become, known by its idempotency key. */
export interface Expected {
  key: string
  status: 'succeeded' | 'dead' | 'cancelled'
  /** It must have been delivered to the sink. */
  delivered: boolean
  /** The id that was answered; undefined while no answer came. */
  id: string | undefined
  /** The same key was answered with two ids. */
  doubled: boolean
}

/** One call; true when it was answered and need not be repeated. */
type Step = (node: NodeProcess) => Promise<boolean>

export interface Traffic {
  /** Everything that was sent at least once. */
  readonly expected: Expected[]
  /** How often each code of a 503 was answered. */
  readonly refusals: ReadonlyMap<string, number>
  /** Steps that were sent and not answered yet. */
  open(): number
  /** Submits `count` new seeded jobs, after what is still open, by four callers, until `signal` aborts. */
  send(node: NodeProcess, count: number, signal: AbortSignal): Promise<void>
  /** Ends what is still open, as a client does that was cut off. Throws when the node does not take it within two minutes. */
  finish(node: NodeProcess): Promise<void>
}

const CALLERS = 4

/** How the sink answers the tasks of `createTraffic`. */
export function trafficReply(sink: Pick<Sink, 'requests'>): Sink['reply'] {
  const failed = new Map<string, number>()
  return ({ path, task }: SinkRequest) => {
    const [, kind, figure] = path.split('/')
    if (kind === 'slow') return { delayMs: Number(figure) }
    if (kind === 'doomed') return { status: 400, body: 'never' }
    if (kind !== 'unsteady') return {}
    const failures = failed.get(task) ?? 0
    if (failures >= Number(figure)) return {}
    failed.set(task, failures + 1)
    return { status: 500, body: `failure ${failures + 1} of ${figure}, request ${sink.requests.length}` }
  }
}

/**
 * Seeded submissions of every kind, each with an idempotency key and repeated until it is answered, as a careful client
 * does. `slowMs` bounds how long the sink takes for slow ones.
 */
export function createTraffic({
  sink,
  queue,
  random,
  name = 'task',
  slowMs = 1_500,
}: {
  sink: Sink
  queue: string
  random: () => number
  /** What the idempotency keys begin with. */
  name?: string
  slowMs?: number
}): Traffic {
  const expected: Expected[] = []
  const refusals = new Map<string, number>()
  const open: Step[][] = []
  let made = 0
  const upTo = (limit: number) => Math.floor(random() * limit)

  function submission(status: Expected['status'], target: object | string, more: object = {}) {
    const key = `${name}-${++made}`
    const isPath = typeof target === 'string'
    const one: Expected = { key, status, delivered: isPath && status !== 'cancelled', id: undefined, doubled: false }
    const task = {
      queue,
      idempotencyKey: key,
      payload: { key },
      target: isPath ? { type: 'http', url: sink.url(target) } : target,
      ...more,
    }
    return { one, task }
  }

  function answered(one: Expected, id: string): void {
    one.doubled ||= one.id !== undefined && one.id !== id
    one.id = id
  }

  /** False for a 503, which is to be repeated; throws for what no fault excuses. */
  function isAnswered(what: string, status: number, body: unknown, good: number[]): boolean {
    if (good.includes(status)) return true
    if (status !== 503) throw new Unexpected(`${what} answered ${status}: ${JSON.stringify(body)}`)
    const { code } = body as { code: string }
    refusals.set(code, (refusals.get(code) ?? 0) + 1)
    return false
  }

  function submitting({ one, task }: ReturnType<typeof submission>, more: () => object = () => ({})): Step {
    return async (node) => {
      if (!expected.includes(one)) expected.push(one)
      const { status, body } = await node.request<{ id: string; code?: string }>('POST', '/tasks', {
        ...task,
        ...more(),
      })
      if (status === 201 || status === 200) answered(one, body.id)
      return isAnswered('POST /tasks', status, body, [200, 201])
    }
  }

  function acting(one: Expected, action: string): Step {
    return async (node) => {
      const { status, body } = await node.request('POST', `/tasks/${one.id}/${action}`)
      // 409: the first call was done, and its answer lost.
      return isAnswered(action, status, body, [200, 202, 409])
    }
  }

  function batch(): Step {
    const all = Array.from({ length: 10 }, () => submission('succeeded', '/quick'))
    return async (node) => {
      for (const { one } of all) if (!expected.includes(one)) expected.push(one)
      const tasks = all.map(({ task }) => task)
      const { status, body } = await node.request<{ ids: string[] }>('POST', '/tasks/batch', tasks)
      if (status === 201) for (const [index, { one }] of all.entries()) answered(one, body.ids[index] ?? '')
      return isAnswered('POST /tasks/batch', status, body, [201])
    }
  }

  /** A parent that waits until it has two children. */
  function family(): Step[] {
    const parent = submission('succeeded', '/quick', { delay: '1h' })
    const children = [submission('succeeded', '/quick'), submission('succeeded', '/unsteady/1')]
    const asChild = () => ({ parentId: parent.one.id })
    return [submitting(parent), ...children.map((child) => submitting(child, asChild)), acting(parent.one, 'run-now')]
  }

  function next(): Step[] {
    const dice = random()
    if (dice < 0.35) return [submitting(submission('succeeded', '/quick'))]
    if (dice < 0.55) return [submitting(submission('succeeded', `/slow/${100 + upTo(slowMs)}`))]
    if (dice < 0.7) return [submitting(submission('succeeded', `/unsteady/${1 + upTo(2)}`))]
    if (dice < 0.75) return [submitting(submission('dead', '/doomed'))]
    if (dice < 0.83) return [submitting(submission('succeeded', '/quick', { delay: `${upTo(10_000)}ms` }))]
    if (dice < 0.88) return [submitting(submission('succeeded', { type: 'noop', delay: `${upTo(1_000)}ms` }))]
    if (dice < 0.93) return [batch()]
    if (dice < 0.96) return family()
    const victim = submission('cancelled', '/quick', { delay: '1h' })
    return [submitting(victim), acting(victim.one, 'cancel')]
  }

  /** Makes the steps of a job as far as they are answered; what is left stays open. */
  async function work(node: NodeProcess, steps: Step[], signal: AbortSignal): Promise<void> {
    open.push(steps)
    while (steps.length > 0 && !signal.aborted) {
      const done = await (steps[0] as Step)(node).catch((error: unknown) => {
        if (error instanceof Unexpected) throw error
        return false
      })
      if (done) steps.shift()
      else if (!signal.aborted) await new Promise((resolve) => setTimeout(resolve, 20))
    }
    if (steps.length === 0) open.splice(open.indexOf(steps), 1)
  }

  async function send(node: NodeProcess, count: number, signal: AbortSignal): Promise<void> {
    const line = [...open.splice(0), ...Array.from({ length: count }, next)]
    const caller = async () => {
      for (let steps = line.shift(); steps; steps = line.shift()) {
        if (signal.aborted) open.push(steps)
        else await work(node, steps, signal)
      }
    }
    await Promise.all(Array.from({ length: CALLERS }, caller))
  }

  return {
    expected,
    refusals,
    open: () => open.length,
    send,
    async finish(node) {
      await send(node, 0, AbortSignal.timeout(120_000))
      if (open.length > 0) throw new Error(`${open.length} jobs were not taken within two minutes`)
    },
  }
}

/** An answer that no fault excuses. */
class Unexpected extends Error {}
