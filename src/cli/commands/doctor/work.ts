import { readAccounting } from '../../../store/accounting.ts'
import type { Database } from '../../../store/database/database.ts'
import { goneNodesWithWork, type Overdue, overdueTasks, unconsumedQueues } from '../../../store/diagnosis.ts'
import { listNodes } from '../../../store/node-list.ts'
import { shortDuration } from '../../output.ts'
import { type Finding, fault, ok, warning } from './finding.ts'

const NODES = 500

/** Whether the work goes on: nodes, tasks that should have run, queues, and the accounts. */
export async function checkWork({ db }: Database): Promise<Finding[]> {
  const alive = (await listNodes(db, NODES)).filter(({ status }) => status === 'alive')
  const dispatched = alive.some(({ roles }) => roles.includes('dispatcher'))
  const gone = await goneNodesWithWork(db)
  const overdue = await overdueTasks(db)
  const queues = await unconsumedQueues(db)
  const { unaccounted, accepted } = await readAccounting(db)
  const findings: Finding[] = []

  if (alive.length === 0) findings.push(warning('nodes', 'No node runs', 'longshore start'))
  else findings.push(ok('nodes', `${alive.length} alive: ${alive.map(({ name }) => name).join(', ')}`))
  const versions = [...new Set(alive.map(({ version }) => version))]
  if (versions.length > 1) {
    findings.push(
      warning(
        'versions',
        `The nodes are of several versions: ${alive.map(({ name, version }) => `${name} ${version}`).join(', ')}`,
        'Bring all to the latest of them',
      ),
    )
  }
  for (const { name, state } of alive) {
    if (!state.link?.reason) continue
    const remedy = 'Until it is mended tasks wait in Postgres; none is lost'
    findings.push(warning('broker', `${name} says of RabbitMQ: ${state.link.reason}`, remedy))
  }
  for (const { name, tasks } of gone) {
    const what = `${name} is gone with ${tasks} tasks in its hands`
    findings.push(
      dispatched
        ? warning('gone-nodes', what, 'A living node sends them again within half a minute; look again then')
        : fault('gone-nodes', what, 'Start a node with the role dispatcher: it sends them again'),
    )
  }
  for (const late of overdue) findings.push(stuck(late, alive.length > 0))
  for (const { queue, tasks } of queues) {
    const what = `Nothing consumes the queue "${queue}" (${tasks} tasks wait)`
    const remedy = `Make a consumer (POST /api/v1/consumers), or delete the queue`
    findings.push(tasks > 0 ? fault('consumers', what, remedy) : warning('consumers', what, remedy))
  }
  findings.push(
    unaccounted === 0
      ? ok('accounting', `All ${accepted} accepted tasks are accounted for`)
      : fault(
          'accounting',
          `${unaccounted} of ${accepted} accepted tasks are unaccounted for`,
          'Were rows changed by hand, or a backup restored? GET /api/v1/accounting shows the sums',
        ),
  )
  if (overdue.length === 0) findings.push(ok('overdue', 'No task waits that should have started'))
  return findings
}

function stuck({ queue, reason, tasks, oldestMs }: Overdue, someNode: boolean): Finding {
  const what = `${tasks} tasks of "${queue}" are overdue, the oldest by ${shortDuration(oldestMs)}`
  const because = (why: string, remedy: string) => fault('overdue', `${what}: ${why}`, remedy)
  switch (reason) {
    case 'queue-paused':
      return warning('overdue', `${what}: the queue is paused`, `longshore queue resume ${queue}`)
    case 'no-consumer':
      return because('nothing consumes the queue', 'Make a consumer: POST /api/v1/consumers')
    case 'consumer-paused':
      return because('its consumers are paused', 'POST /api/v1/consumers/<id>/resume')
    case 'other':
      return someNode
        ? because(
            'the workers do not keep up',
            'longshore task list names what each waits for; raise the concurrency or start more nodes',
          )
        : because('no node runs', 'longshore start')
    default:
      return reason satisfies never
  }
}
