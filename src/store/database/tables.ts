import type { ColumnType, Generated, JSONColumnType } from 'kysely'
import type { FireOutcome, Missed, Overlap } from '../../task/schedule.ts'
import type { Origin, Status } from '../../task/status.ts'

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
  publisher: string | null
  publish_no: number | null
  exchange: string | null
  routing_key: string | null
  message: string | null
}

export interface QueuesTable {
  name: string
  type: string
  retry: JSONColumnType<object>
  retention: JSONColumnType<object>
  paused: Generated<boolean>
  max_priority: number | null
  window_size: number | null
  settlement: Generated<string>
  dead_letter: Generated<boolean>
  dispatch_order: Generated<string>
  report_within_ms: number | null
  conflict: string | null
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface ExchangesTable {
  name: string
  type: string
  conflict: string | null
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface BindingsTable {
  exchange: string
  queue: string
  routing_key: string
  created_at: CreatedAt
}

export interface ConsumersTable {
  id: string
  queue: string
  target: JSONColumnType<object>
  concurrency: number
  timeout_ms: number
  paused: Generated<boolean>
  rate_limit: JSONColumnType<object> | null
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface TokensTable {
  consumer: string
  tokens: number
  refilled_at: ColumnType<string, never, string>
}

export interface LocksTable {
  name: string
  node: string
  taken_at: CreatedAt
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
  broker: Generated<string>
  confirmed: Generated<number>
  key_id: string | null
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

export interface SourcesTable {
  id: string
  name: string
  settings: JSONColumnType<object>
  auth: JSONColumnType<object> | null
  secret: Buffer | null
  secret_key: string | null
  paused: Generated<boolean>
  managed_by: string | null
  external_id: string | null
  gone_at: Timestamp
  pinned: JSONColumnType<object> | null
  alert: JSONColumnType<object> | null
  next_poll_at: string
  polled_at: Timestamp
  poll: JSONColumnType<object> | null
  created_at: CreatedAt
  updated_at: ColumnType<string, never, string>
}

export interface FilesTable {
  id: string
  source: string
  path: string
  generation: Generated<number>
  size: number | null
  modified: string | null
  exact: string | null
  unsure_until: Timestamp
  status: string
  stable: Generated<number>
  listed_at: CreatedAt
  marker: string | null
  asked: Generated<boolean>
  failures: Generated<number>
  retry_at: Timestamp
  paused: Generated<boolean>
  sha256: string | null
  spool: string | null
  task: string | null
  bytes_read: Generated<number>
  records_read: Generated<number>
  records_rejected: Generated<number>
  checkpoint: string | null
  tasks: JSONColumnType<object> | null
  after: string | null
  after_at: Timestamp
  after_failures: Generated<number>
  after_error: string | null
  location: string | null
  duplicate_of: string | null
  error: string | null
  seen_at: CreatedAt
  fetched_at: Timestamp
  imported_at: Timestamp
  finished_at: Timestamp
}

export interface RejectsTable {
  file: string
  number: number
  line: number
  reason: string
  raw: string
}

/** The ledger as Kysely sees it; the migrations in db/ are its source. */
export interface Tables {
  tasks: TasksTable
  queues: QueuesTable
  exchanges: ExchangesTable
  bindings: BindingsTable
  consumers: ConsumersTable
  tokens: TokensTable
  locks: LocksTable
  nodes: NodesTable
  counters: CountersTable
  keys: KeysTable
  settings: SettingsTable
  schedules: SchedulesTable
  fires: FiresTable
  events: EventsTable
  sources: SourcesTable
  files: FilesTable
  rejects: RejectsTable
}
