import type { Queue } from '../../../store/topology/queues.ts'
import { allItems, type Client } from '../../client.ts'
import { facts, oneLine, paint, paintStatus, shortDuration, table } from '../../output.ts'

/** A queue as the API shows it. */
export type Shown = Omit<Queue, 'reportWithinMs'> & {
  reportWithin: string | null
  state: 'ready' | 'conflict'
  depth: Record<string, number>
  oldestWaitingMs: number | null
  rate: number
}
export type Backoff = Queue['retry']['backoff']

export const NAME = 'the name of a queue'

export function allQueues(client: Client): Promise<Shown[]> {
  return allItems(client, '/queues')
}

/** Queues with their figures. */
export function queueTable(queues: readonly Shown[]): string {
  const depth = (head: string, status: string) => ({
    head,
    cell: (queue: Shown) => queue.depth[status] ?? 0,
    right: true as const,
  })
  return table<Shown>(
    [
      { head: 'QUEUE', cell: ({ name }) => oneLine(name, 40) },
      depth('PENDING', 'pending'),
      depth('QUEUED', 'queued'),
      depth('RUNNING', 'running'),
      depth('RETRYING', 'retrying'),
      { head: 'DEAD', cell: ({ depth }) => (depth.dead ? paint('red', String(depth.dead)) : '0'), right: true },
      { head: 'PER SECOND', cell: ({ rate }) => rate.toFixed(1), right: true },
      {
        head: 'OLDEST',
        cell: ({ oldestWaitingMs }) => (oldestWaitingMs === null ? '-' : shortDuration(oldestWaitingMs)),
        right: true,
      },
      { head: '', cell: stateOf },
    ],
    queues,
  )
}

function stateOf({ state, paused }: Shown): string {
  return [state === 'conflict' ? paint('red', 'conflict') : '', paused ? paintStatus('paused') : ''].join(' ').trim()
}

/** A queue with its policies. */
export function description(queue: Shown): string {
  const { name, type, maxPriority, window, settlement, deadLetter, order, reportWithin } = queue
  const { retry, retention, depth, conflict } = queue
  return facts([
    ['queue', name],
    ['state', stateOf(queue) || 'open'],
    ['conflict', conflict === null ? undefined : paint('red', oneLine(conflict, 400))],
    ['type', maxPriority === null ? type : `${type}, priorities up to ${maxPriority}`],
    ['window', window === null ? 'by its consumers' : String(window)],
    ['settlement', reportWithin === null ? settlement : `${settlement}, reported within ${reportWithin}`],
    ['order', order],
    ['dead letters', deadLetter ? 'kept' : 'not kept'],
    ['attempts', String(retry.maxAttempts)],
    ['backoff', `${retry.backoff.kind}: ${wordsOf(withoutKind(retry.backoff))}`],
    ['kept', wordsOf(retention)],
    ['tasks', wordsOf(depth)],
  ])
}

function withoutKind({ kind: _, ...waits }: Backoff): object {
  return waits
}

function wordsOf(values: object): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${Array.isArray(value) ? value.join(' ') : value}`)
    .join(', ')
}

export function pathOf(name: string): string {
  return `/queues/${encodeURIComponent(name)}`
}
