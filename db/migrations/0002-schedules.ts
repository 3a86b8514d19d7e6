import { type Kysely, sql } from 'kysely'

/** Schedules, and what their latest fires came to. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create table schedules (
    name text primary key,
    cron text not null,
    timezone text not null,
    -- the submission as it was received
    task json not null,
    queue text not null,
    overlap text not null,
    missed text not null,
    jitter_ms bigint not null,
    paused boolean not null,
    -- every fire up to this time is judged
    cursor timestamptz not null,
    -- when a scheduler looks at it next: the next fire with its jitter
    wake_at timestamptz not null,
    -- why it cannot be judged
    error text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
  )`.execute(db)
  await sql`create index schedules_wake on schedules (wake_at) where not paused`.execute(db)

  await sql`create table fires (
    id bigint generated always as identity primary key,
    schedule text not null references schedules (name) on delete cascade,
    fire_at timestamptz not null,
    fired_at timestamptz not null default clock_timestamp(),
    outcome text not null,
    manual boolean not null default false,
    task_id uuid,
    detail text
  )`.execute(db)
  await sql`create index fires_schedule on fires (schedule, id)`.execute(db)
}
