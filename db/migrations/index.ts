import type { Migration } from 'kysely/migration'
import * as tasks from './0001-tasks.ts'
import * as schedules from './0002-schedules.ts'
import * as events from './0003-events.ts'
import * as traces from './0004-traces.ts'
import * as rabbitmq from './0005-rabbitmq.ts'
import * as sources from './0006-sources.ts'

/** Every migration by name, in order. Static, so that the compiled binary holds them; a landed one never changes. */
export const migrations: Record<string, Migration> = {
  '0001-tasks': tasks,
  '0002-schedules': schedules,
  '0003-events': events,
  '0004-traces': traces,
  '0005-rabbitmq': rabbitmq,
  '0006-sources': sources,
}
