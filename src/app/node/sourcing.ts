import { join } from 'node:path'
import type { Config } from '../../config.ts'
import type { Clock } from '../../runtime/clock.ts'
import { createEgress } from '../../runtime/egress/egress.ts'
import type { Logger } from '../../runtime/log.ts'
import type { Service } from '../../runtime/service.ts'
import { announcementOf } from '../../sources/announcement.ts'
import { fetchAgain, isHopeless } from '../../sources/import/fetch-again.ts'
import { createImports } from '../../sources/import/imports.ts'
import { createFileKeeper, createFileRetention, createSpoolKeeper } from '../../sources/keeper.ts'
import { createPoller } from '../../sources/poller.ts'
import { createRegistry } from '../../sources/registry/registry.ts'
import { createSources, type Sources } from '../../sources/sources.ts'
import { createSpool } from '../../sources/spool.ts'
import type { TryDeps } from '../../sources/try-source.ts'
import type { Database } from '../../store/database/database.ts'
import { openSecretBox } from '../../store/keys/secret-key.ts'
import { insertTasks } from '../../store/tasks/insert/insert.ts'
import { queuesOf } from '../../store/tasks/insert/insert-addressed.ts'
import { addressingFor } from '../../submit/addressing.ts'
import type { BrokerKind } from '../../task/ledger.ts'
import type { ImportLedger } from '../../task/source/import.ts'
import type { NewTask } from '../../task/task.ts'

export interface SourcingDeps {
  config: Pick<
    Config,
    'dataDir' | 'databaseUrl' | 'secretKeys' | 'egress' | 'spoolLimit' | 'registryUrl' | 'registryCron'
  >
  log: Logger
  clock: Clock
  database: Pick<Database, 'pool'>
  broker: BrokerKind
  /** The present id of this node, and whether it may begin anything (PROTOCOL 5). */
  node(): string
  mayStart(): boolean
  /** Queues have work, on this node and the others. */
  wake(queues: string[]): void
  touched(ids: string[]): void
  /** Tells the other nodes that sources have changed; this one is told by `wake` of the part. */
  tellSources(): void
  /** Queues, exchanges, bindings or consumers were made: this node and the others read them. */
  topologyChanged(): void
}

/** What a node does about files on servers. */
export interface Sourcing {
  /** For targets that import, on nodes that work. */
  imports: ImportLedger
  /** For whoever changes sources. */
  sources: Sources
  /** For tests and for browsing. */
  trying: TryDeps
  /** Sources or files have changed: looks at once. */
  wake(): void
  /** The same, for the pollers of all nodes. */
  changed(): void
  /** What every node runs, and what those with the role `scheduler` run. */
  everywhere: Service[]
  scheduled: Service[]
}

export async function createSourcing(deps: SourcingDeps): Promise<Sourcing> {
  const { config, log, clock, database, node, wake, touched } = deps
  const { pool } = database
  const { databaseUrl, dataDir } = config
  const box = await openSecretBox(config.secretKeys?.reveal(), databaseUrl ? null : join(dataDir, 'secret.key'))
  const guard = createEgress(config.egress)
  const spool = createSpool(join(dataDir, 'spool'), { limitBytes: config.spoolLimit })
  const addressing = addressingFor(deps.broker)
  const trying: TryDeps = { pool, clock, guard, box, spool }
  const onChanged = () => {
    poller.wake()
    deps.tellSources()
  }

  async function submit(task: NewTask): Promise<string> {
    const [answer] = await insertTasks(pool, node(), [task], { addressing })
    if (answer?.kind !== 'created') throw new Error(answer?.kind === 'refused' ? answer.detail : 'It was not stored')
    touched([task.id])
    wake(queuesOf(task, answer))
    return task.id
  }

  const poller = createPoller({
    ...trying,
    log,
    node,
    mayStart: deps.mayStart,
    addressing,
    announce: (source, plan) => submit(announcementOf(source, plan)),
    onFetched(task, queues) {
      touched([task])
      wake(queues)
    },
  })
  const imports = createImports({
    pool,
    clock,
    log,
    spool,
    node,
    fetchAgain: (file) => fetchAgain(file, trying),
    isHopeless,
    onSubmitted(queue, tasks) {
      touched(tasks)
      wake([queue])
    },
    onEnded: onChanged,
  })
  const sources = createSources({
    pool,
    box,
    checkHost: (host) => guard.checkHost(host),
    onChanged,
    onTopology: deps.topologyChanged,
  })
  const url = config.registryUrl?.reveal()
  const registry =
    url === undefined
      ? []
      : [
          createRegistry({
            ...{ pool, clock, log, box, url, cron: config.registryCron },
            ...{ onChanged, onTopology: deps.topologyChanged },
          }),
        ]
  return {
    imports,
    sources,
    trying,
    wake: () => poller.wake(),
    changed: onChanged,
    everywhere: [createSpoolKeeper({ pool, clock, log, spool, node })],
    scheduled: [
      poller,
      createFileKeeper({ pool, clock, log, onAfter: onChanged }),
      createFileRetention({ pool, clock, log }),
      ...registry,
    ],
  }
}
