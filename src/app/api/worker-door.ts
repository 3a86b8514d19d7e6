import { cached } from '../../api/cached.ts'
import type { WorkerProtocolDeps } from '../../api/routes/worker-protocol.ts'
import { createWorkerDoor } from '../../api/workers/door.ts'
import { createWorkerNotices } from '../../api/workers/notices.ts'
import { realClock } from '../../runtime/clock.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Database } from '../../store/database/database.ts'
import type { Notice } from '../../store/database/notice.ts'
import { readTopology } from '../../store/topology/topology.ts'
import { isFinal } from '../../task/status.ts'
import { workerTopology } from '../../task/worker-protocol.ts'
import type { Node } from '../node.ts'

/** All workers' beats share one look at the rows. */
const TOPOLOGY_KEPT = { minMs: 250, maxMs: 1_000 }

/** What workers without a database meet at this node. */
export function openWorkerDoor(log: Logger, { pool }: Database, node: Node): WorkerProtocolDeps {
  const { ledger, brokerName, dispatcher, notifications } = node
  const notices = createWorkerNotices(realClock)
  const newLook = () => cached(async () => workerTopology(await readTopology(pool)), TOPOLOGY_KEPT)
  let look = newLook()
  const hear = ({ kind }: Notice) => {
    if (kind === 'topology') look = newLook()
    if (kind === 'topology' || kind === 'cancel') notices.tell()
  }
  notifications.onNotice(hear)
  notifications.onSent(hear)
  const door = createWorkerDoor({
    pool,
    ledger,
    log,
    broker: brokerName,
    topology: () => look(),
    onSettled(settlements, settled) {
      const queues = new Set<string>()
      for (const [index, { queue }] of settlements.entries()) {
        const end = settled[index]
        if (!end || end.late || isFinal(end.status)) continue
        dispatcher.wake(queue, end.delayMs)
        queues.add(queue)
      }
      if (queues.size > 0) notifications.send({ kind: 'wake', queues: [...queues] })
    },
  })
  return { door, ledger, notices }
}
