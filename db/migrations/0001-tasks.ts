import { type Kysely, sql } from 'kysely'

/** Tasks and what surrounds them. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create type task_status as enum
    ('pending', 'queued', 'running', 'retrying', 'succeeded', 'dead', 'cancelled')`.execute(db)

  await sql`create table queues (
    name text primary key,
    type text not null default 'quorum',
    retry jsonb not null,
    retention jsonb not null,
    paused boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
  )`.execute(db)

  await sql`create table consumers (
    id uuid primary key,
    queue text not null references queues (name),
    target jsonb not null,
    concurrency integer not null check (concurrency between 1 and 10000),
    timeout_ms bigint not null,
    paused boolean not null default false,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
  )`.execute(db)
  await sql`create index consumers_queue on consumers (queue)`.execute(db)

  // A task's queue is no foreign key: history outlives its queue, and the check would cost every insert.
  await sql`create table tasks (
    id uuid primary key,
    queue text not null,
    type text,
    payload json not null,
    target json,
    status task_status not null default 'pending',
    priority smallint not null check (priority between 0 and 9),
    due_at timestamptz not null,
    attempt integer not null default 0,
    failures integer not null default 0,
    max_attempts integer not null,
    lost_starts smallint not null default 0,
    timeout_ms bigint,
    idempotency_key text,
    fingerprint text,
    parent_id uuid,
    origin text not null,
    node uuid,
    claim_id uuid,
    cancel_requested boolean not null default false,
    -- who holds it by REST, and until when it must report
    foreign_owner text,
    report_by timestamptz,
    -- its own work succeeded: it is final when its children are
    sealed boolean not null default false,
    children_total integer not null default 0,
    children_succeeded integer not null default 0,
    children_dead integer not null default 0,
    result json,
    error text,
    progress json,
    logs jsonb,
    attempts jsonb not null default '[]',
    created_at timestamptz not null default now(),
    started_at timestamptz,
    finished_at timestamptz
  ) with (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000,
    autovacuum_vacuum_insert_scale_factor = 0.2, autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 1
  )`.execute(db)
  // The dispatcher's line: one probe per priority, oldest due first.
  await sql`create index tasks_waiting on tasks (queue, priority, due_at, id)
    where status in ('pending', 'retrying')`.execute(db)
  await sql`create index tasks_created on tasks (created_at, id)`.execute(db)
  await sql`create index tasks_unfinished on tasks (status, created_at, id) include (queue)
    where status <> 'succeeded'`.execute(db)
  await sql`create index tasks_finished on tasks (queue, status, finished_at)
    where status in ('succeeded', 'dead', 'cancelled')`.execute(db)
  await sql`create index tasks_parent on tasks (parent_id, created_at, id) where parent_id is not null`.execute(db)
  await sql`create unique index tasks_idempotency on tasks (queue, idempotency_key)
    where idempotency_key is not null`.execute(db)

  await sql`create table nodes (
    id uuid primary key,
    name text not null,
    version text not null,
    roles text[] not null,
    started_at timestamptz not null default now(),
    beat_at timestamptz not null default now(),
    -- its beats have been without a gap since then
    steady_since timestamptz not null default now(),
    left_at timestamptz,
    dead_at timestamptz,
    started_tasks uuid[] not null default '{}',
    state jsonb not null
  )`.execute(db)

  await sql`create table counters (
    node uuid not null,
    queue text not null,
    origin text not null,
    accepted bigint not null default 0,
    pruned bigint not null default 0,
    primary key (node, queue, origin)
  ) with (fillfactor = 50)`.execute(db)

  await sql`create table keys (
    id text primary key,
    name text not null,
    scopes text[] not null,
    hash bytea not null,
    created_at timestamptz not null default now()
  )`.execute(db)

  await sql`create table settings (
    name text primary key,
    value jsonb not null
  )`.execute(db)
}
