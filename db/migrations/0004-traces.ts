import { type Kysely, sql } from 'kysely'

/** The W3C trace context that a task was submitted with. */
export async function up(db: Kysely<unknown>): Promise<void> {
  await sql`alter table tasks add column traceparent text`.execute(db)
}
