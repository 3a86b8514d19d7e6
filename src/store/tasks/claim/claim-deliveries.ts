import type { Pool } from 'pg'
import type { Claim, ClaimAnswer, DeliveryClaim } from '../../../task/ledger.ts'
import type { ClaimedTask } from '../../../task/task.ts'
import { inTransaction, prepared, type Queryable, repeated } from '../../database/statement.ts'
import { noteArrivals } from '../at-broker/late-messages.ts'
import { adoptCopies, claimCopies } from '../family/copies.ts'
import { adoptStrays } from './adopt.ts'
import { CLAIMED_COLUMNS, TAKE_QUEUED } from './claim.ts'

type Answers = Map<DeliveryClaim, ClaimAnswer>
type TaskDelivery = Extract<DeliveryClaim, { kind: 'task' }>
type Copy = Extract<DeliveryClaim, { kind: 'copy' }>

/**
 * Judges deliveries of one queue and takes those that are to be run for `node`, in one transaction. The attempt in a
 * message is its fence: a row that is not queued for that very attempt makes the delivery a duplicate (PROTOCOL 1). A
 * paused queue's tasks go back to pending instead. The same claim again gives the same answers (PROTOCOL 2).
 */
export async function claimDeliveries(pool: Pool, claim: Claim): Promise<ClaimAnswer[]> {
  const onlyTasks = claim.deliveries.every(({ kind }) => kind === 'task')
  if (onlyTasks) {
    const { answers, astray } = await repeated(() => judgeTasks(pool, claim))
    if (astray.length > 0) await inTransaction(pool, (tx) => judgeAstray(tx, claim, astray, answers))
    return answersOf(claim, answers)
  }
  return answersOf(claim, await inTransaction(pool, (tx) => judgeAll(tx, claim)))
}

function answersOf(claim: Claim, answers: Answers): ClaimAnswer[] {
  return claim.deliveries.map((delivery) => answers.get(delivery) ?? { kind: 'duplicate' })
}

async function judgeAll(tx: Queryable, claim: Claim): Promise<Answers> {
  const { deliveries } = claim
  // Tasks are locked newest first everywhere: strays are younger than what is queued, parents of copies older.
  const answers: Answers = new Map()
  const strays = deliveries.filter(({ kind }) => kind === 'foreign' || kind === 'unreadable')
  add(answers, await adoptStrays(tx, claim, strays))
  const tasks = await judgeTasks(tx, claim)
  add(answers, tasks.answers)
  await judgeAstray(tx, claim, tasks.astray, answers)
  const copies = deliveries.filter((delivery) => delivery.kind === 'copy')
  add(answers, await judgeCopies(tx, claim, copies))
  return answers
}

/** A child's own message and a copy of its parent's may come in one batch: it is taken once. */
function add(answers: Answers, more: Answers): void {
  const taken = new Set([...answers.values()].flatMap((answer) => (answer.kind === 'claimed' ? answer.task.id : [])))
  for (const [delivery, answer] of more) {
    const isTwin = answer.kind === 'claimed' && taken.has(answer.task.id)
    answers.set(delivery, isTwin ? { kind: 'duplicate' } : answer)
  }
}

async function judgeCopies(tx: Queryable, claim: Claim, copies: Copy[]): Promise<Answers> {
  if (copies.length === 0) return new Map()
  const known = await claimCopies(tx, claim, copies)
  const orphans = copies.filter((copy) => !known.has(copy))
  return new Map([...known, ...(await adoptCopies(tx, claim, orphans))])
}

/**
 * A task that went to the one queue of its exchange travels through that exchange: where another queue was bound since,
 * that one got a copy, which becomes a child of the task.
 */
async function judgeAstray(tx: Queryable, claim: Claim, astray: TaskDelivery[], answers: Answers): Promise<void> {
  const copies = new Map(
    astray.map((delivery): [Copy, TaskDelivery] => [{ kind: 'copy', parentId: delivery.id }, delivery]),
  )
  const judged = await judgeCopies(tx, claim, [...copies.keys()])
  add(answers, new Map([...judged].map(([copy, answer]) => [copies.get(copy as Copy) as TaskDelivery, answer])))
}

async function judgeTasks(tx: Queryable, claim: Claim): Promise<{ answers: Answers; astray: TaskDelivery[] }> {
  const tasks = claim.deliveries.filter((delivery) => delivery.kind === 'task').sort((a, b) => (a.id < b.id ? 1 : -1))
  const answers: Answers = new Map()
  if (tasks.length === 0) return { answers, astray: [] }
  const rows = await prepared<ClaimedTask & { claimed: boolean }>(tx, 'claim-queued', CLAIM_QUEUED, [
    tasks.map(({ id }) => id),
    tasks.map(({ attempt }) => attempt),
    claim.node,
    claim.claimId,
    claim.queue,
  ])
  const taken = new Map(rows.map((row) => [row.id, row]))
  const rest: typeof tasks = []
  for (const delivery of tasks) {
    const row = taken.get(delivery.id)
    taken.delete(delivery.id)
    if (row) answers.set(delivery, row.claimed ? claimedAnswer(row) : { kind: 'duplicate' })
    else rest.push(delivery)
  }
  return { answers, astray: rest.length > 0 ? await judgeRest(tx, claim, rest, answers) : [] }
}

/**
 * Deliveries whose rows were not queued for them: taken by this very claim before, duplicates, or of no known task. Gives
 * those that came to a queue which is not their task's.
 */
async function judgeRest(
  tx: Queryable,
  { node, claimId, queue }: Claim,
  rest: TaskDelivery[],
  answers: Answers,
): Promise<TaskDelivery[]> {
  const rows = await prepared<ClaimedTask & { mine: boolean; addressed: boolean; late: boolean }>(
    tx,
    'judge-deliveries',
    `select ${CLAIMED_COLUMNS}, t.status = 'running' and t.node = $2 and t.claim_id = $3 as mine,
       t.exchange is not null as addressed, t.finished_at is not null and t.publish_no is not null as late
     from tasks t where t.id = any($1::uuid[])`,
    [rest.map(({ id }) => id), node, claimId],
  )
  const known = new Map(rows.map((row) => [row.id, row]))
  // The same message twice in one batch is one claim and one duplicate.
  const claimed = new Set([...answers].flatMap(([delivery]) => (delivery.kind === 'task' ? delivery.id : [])))
  const astray: TaskDelivery[] = []
  for (const delivery of rest) {
    const row = known.get(delivery.id)
    if (!row) answers.set(delivery, { kind: 'unknown' })
    else if (row.queue !== queue && row.addressed && delivery.attempt === 1) astray.push(delivery)
    else if (row.mine && row.attempt === delivery.attempt && !claimed.has(row.id)) {
      claimed.add(row.id)
      answers.set(delivery, claimedAnswer(row))
    } else answers.set(delivery, { kind: 'duplicate' })
  }
  await noteArrivals(
    tx,
    rows.filter(({ late }) => late).map(({ id }) => id),
  )
  return astray
}

type Judgement = { mine?: boolean; claimed?: boolean; addressed?: boolean; late?: boolean }

function claimedAnswer(row: ClaimedTask & Judgement): ClaimAnswer {
  const { mine: _, claimed: __, addressed: ___, late: ____, ...task } = row
  return { kind: 'claimed', task }
}

/**
 * Each row by its id. Were its queue or its status compared as what the index of queued tasks holds, Postgres would read
 * all that are queued for every batch, because it takes them for few.
 */
export const CLAIM_QUEUED = `
  update tasks t
  set ${TAKE_QUEUED}
  from unnest($1::uuid[], $2::int[]) as d(id, attempt), queues q
  where t.id = d.id and t.status::text = 'queued' and t.attempt = d.attempt - 1 and t.queue = $5 and q.name = $5
  returning ${CLAIMED_COLUMNS}, t.status = 'running' as claimed,
    (extract(epoch from now() - t.due_at) * 1000)::float8 as "waitedMs"`
