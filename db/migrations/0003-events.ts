import { type Kysely, sql } from 'kysely'

/** The latest changes of tasks, for clients of the event feed; written only while there are any. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`create table events (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    -- how many tasks the changes are about
    tasks integer not null,
    -- null: what happened before this may not have been written
    changes json
  ) with (autovacuum_vacuum_scale_factor = 0.1, autovacuum_vacuum_threshold = 500)`.execute(db)
}
