import type { Client } from '../../client.ts'
import type { ApiOptions } from '../../command.ts'
import { note, oneLine, paintStatus, print, printJson, table } from '../../output.ts'

export interface BulkOptions extends ApiOptions {
  status?: string[]
  queue?: string
  type?: string
  dryRun?: true
  /** Of a replay. */
  to?: string
  rate?: number
}

interface Answer {
  matched: number
  outcomes: Record<string, number>
  sample: { id: string; queue: string; type: string | null; status: string }[]
  next: string | null
}

/** Cancels or replays all tasks that the filters name, in as many calls as it takes. */
export async function actOnTasks(client: Client, action: 'cancel' | 'replay', options: BulkOptions): Promise<void> {
  const { status, queue, type, dryRun = false, to, rate } = options
  const filter = { ...(status && { status }), ...(queue && { queue }), ...(type && { type }) }
  const total: Answer = { matched: 0, outcomes: {}, sample: [], next: null }
  let after: string | null = null
  do {
    const answer: Answer = await client.call('POST', '/tasks/actions', {
      action,
      filter,
      dryRun,
      ...(to !== undefined && { queue: to }),
      ...(rate !== undefined && { ratePerSecond: rate }),
      ...(after !== null && { after }),
    })
    total.matched += answer.matched
    if (total.sample.length === 0) total.sample = answer.sample
    for (const [outcome, count] of Object.entries(answer.outcomes)) {
      total.outcomes[outcome] = (total.outcomes[outcome] ?? 0) + count
    }
    after = answer.next
    if (after !== null) note(`${total.matched} tasks so far`)
  } while (after !== null)

  if (options.json) return printJson({ action, dryRun, ...total, next: undefined })
  if (total.matched === 0) return print('No such tasks')
  if (!dryRun) return printOutcomes(total.outcomes)
  print(
    table(
      [
        { head: 'ID', cell: ({ id }) => id },
        { head: 'STATUS', cell: ({ status }) => paintStatus(status) },
        { head: 'QUEUE', cell: ({ queue }) => oneLine(queue, 30) },
        { head: 'TYPE', cell: ({ type }) => oneLine(type ?? '-', 30) },
      ],
      total.sample,
    ),
  )
  print(`${total.matched} in all; without --dry-run they are ${action === 'cancel' ? 'cancelled' : 'replayed'}`)
}

function printOutcomes(outcomes: Answer['outcomes']): void {
  print(
    Object.entries(outcomes)
      .map(([outcome, count]) => `${count} ${outcome}`)
      .join(', '),
  )
  if (outcomes.unreadable) {
    note('Unreadable: messages without a payload; give each one ("longshore task mend"), then replay it')
  }
}
