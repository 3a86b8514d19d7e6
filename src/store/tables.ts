import type { ColumnType, Generated, JSONColumnType } from 'kysely'
import type { FireOutcome, Missed, Overlap } from '../task/schedule.ts'
import type { Origin, Status } from '../task/status.ts'

/** Written by the database's default, read as RFC 3339 in UTC with milliseconds. */
type CreatedAt = ColumnType<string, never, never>
type Timestamp = ColumnType<string | null, string | null, string | null>
/** `json` columns hold the text that was received: it is never parsed by the driver. */
type JsonText = ColumnType<string, string, string>

export interface TasksTable {
  id: string
  queue: string
  type: string | null
  payload: JsonText
  target: string | null
  status: Status
  priority: number
  due_at: string
  attempt: number
  failures: number
  max_attempts: number
  lost_starts: number
  timeout_ms: number | null
  idempotency_key: string | null
  fingerprint: string | null
  parent_id: string | null
  origin: Origin
  node: string | null
  claim_id: string | null
  cancel_requested: boolean
  foreign_owner: string | null
  report_by: Timestamp
  sealed: boolean
  children_total: number
  children_succeeded: number
  children_dead: number
  result: string | null
  error: string | null
  progress: string | null
  logs: string[] | null
  attempts: JSONColumnType<unknown[]>
  created_at: CreatedAt
  started_at: Timestamp
  finished_at: Timestamp
  traceparent: string | null
}

export interface QueuesTable {
  name: string
  type: string
  retry: JSONColumnType<object>
  retention: JSONColumnType<object>
  paused: Generated<boolean>
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface ConsumersTable {
  id: string
  queue: string
  target: JSONColumnType<object>
  concurrency: number
  timeout_ms: number
  paused: Generated<boolean>
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface NodesTable {
  id: string
  name: string
  version: string
  roles: string[]
  started_at: CreatedAt
  beat_at: CreatedAt
  steady_since: CreatedAt
  left_at: Timestamp
  dead_at: Timestamp
  started_tasks: Generated<string[]>
  state: JSONColumnType<object>
}

export interface CountersTable {
  node: string
  queue: string
  origin: Origin
  accepted: number
  pruned: number
}

export interface KeysTable {
  id: string
  name: string
  scopes: string[]
  hash: Buffer
  created_at: CreatedAt
}

export interface SettingsTable {
  name: string
  value: JSONColumnType<object>
}

export interface SchedulesTable {
  name: string
  cron: string
  timezone: string
  task: JsonText
  queue: string
  overlap: Overlap
  missed: Missed
  jitter_ms: number
  paused: boolean
  cursor: string
  wake_at: string
  error: string | null
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface FiresTable {
  id: Generated<number>
  schedule: string
  fire_at: string
  fired_at: CreatedAt
  outcome: FireOutcome
  manual: boolean
  task_id: string | null
  detail: string | null
}

export interface EventsTable {
  id: Generated<number>
  at: CreatedAt
  tasks: number
  changes: JsonText | null
}

/** The ledger as Kysely sees it; the migrations in db/ are its source. */
export interface Tables {
  tasks: TasksTable
  queues: QueuesTable
  consumers: ConsumersTable
  nodes: NodesTable
  counters: CountersTable
  keys: KeysTable
  settings: SettingsTable
  schedules: SchedulesTable
  fires: FiresTable
  events: EventsTable
}
