import { type Kysely, sql } from 'kysely'

/** What a broker outside of the process needs: who published what, exchanges and bindings, rate limits, locks. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table queues
    add column max_priority smallint check (max_priority between 0 and 9),
    -- null: by the consumers' concurrency and rate
    add column window_size integer check (window_size > 0),
    add column settlement text not null default 'outcome',
    add column dead_letter boolean not null default true,
    add column dispatch_order text not null default 'due',
    add column report_within_ms bigint,
    -- what the broker has otherwise than this row says; such a queue stands still
    add column conflict text`.execute(db)

  await sql`create table exchanges (
    name text primary key,
    type text not null,
    conflict text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
  )`.execute(db)
  await sql`create table bindings (
    exchange text not null references exchanges (name) on delete cascade,
    queue text not null references queues (name) on delete cascade,
    routing_key text not null,
    created_at timestamptz not null default now(),
    primary key (exchange, queue, routing_key)
  )`.execute(db)
  await sql`create index bindings_queue on bindings (queue)`.execute(db)

  await sql`alter table tasks
    -- the node that handed it to the broker, and the number of that publish there
    add column publisher uuid,
    add column publish_no bigint,
    -- where it was addressed to, when not to a queue; a copy in one of the exchange's queues has the routing key only
    add column exchange text,
    add column routing_key text,
    -- a message that came from elsewhere: its bytes (base64) where they are no payload, properties, headers, reason
    add column message json`.execute(db)
  await sql`create index tasks_queued on tasks (queue, publisher, publish_no) where status = 'queued'`.execute(db)
  // Whatever queues an exchange has when a key comes again: the first task with it is found.
  await sql`create unique index tasks_exchange_idempotency on tasks (exchange, idempotency_key)
    where exchange is not null and idempotency_key is not null`.execute(db)

  await sql`alter table nodes
    add column broker text not null default 'in-process',
    -- every publish up to this number is confirmed by the broker
    add column confirmed bigint not null default 0,
    -- a worker without a database belongs to the key that it came with: no other one settles its tasks; null: a node
    add column key_id text`.execute(db)

  await sql`alter table consumers add column rate_limit jsonb`.execute(db)
  await sql`create table tokens (
    consumer uuid primary key references consumers (id) on delete cascade,
    tokens double precision not null,
    refilled_at timestamptz not null default clock_timestamp()
  ) with (fillfactor = 50)`.execute(db)

  // A name belongs to the node that has it, while that node lives.
  await sql`create table locks (
    name text primary key,
    node uuid not null,
    taken_at timestamptz not null default now()
  )`.execute(db)
}
