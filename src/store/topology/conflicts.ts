import type { Pool } from 'pg'

/** A queue or exchange that the broker has otherwise than its row says. */
export interface Conflict {
  kind: 'queue' | 'exchange'
  name: string
  /** The difference, and what to do. */
  text: string
}

interface Declared {
  queues: readonly { name: string }[]
  exchanges: readonly { name: string }[]
}

const namesOf = (rows: readonly { name: string }[]) => rows.map(({ name }) => name)

/** Queues of `declared` whose conflict is over, and shown on their rows still: what the broker held of them may be gone. */
export async function mendedQueues(pool: Pool, declared: Declared, conflicts: readonly Conflict[]): Promise<string[]> {
  const differing = conflicts.flatMap((one) => (one.kind === 'queue' ? [one.name] : []))
  const { rows } = await pool.query<{ name: string }>(
    'select name from queues where conflict is not null and name = any($1::text[]) and name <> all($2::text[]) order by name',
    [namesOf(declared.queues), differing],
  )
  return namesOf(rows)
}

/**
 * Shows conflicts on their rows and no conflict on the others of `declared`; rows that were not declared stay as they are.
 * Writes what differs only. True when something did.
 */
export async function saveConflicts(pool: Pool, declared: Declared, conflicts: readonly Conflict[]): Promise<boolean> {
  const save = async (table: 'queues' | 'exchanges', kind: Conflict['kind'], names: string[]) => {
    const texts = new Map(conflicts.flatMap((one) => (one.kind === kind ? [[one.name, one.text] as const] : [])))
    // Several nodes find the same: whoever comes second waits, and has nothing to write any more.
    const { rowCount } = await pool.query(
      `with differing as (
         select r.name, f.text from ${table} r join unnest($1::text[], $2::text[]) as f(name, text) on f.name = r.name
         where r.conflict is distinct from f.text order by r.name for update of r
       )
       update ${table} r set conflict = d.text from differing d where r.name = d.name`,
      [names, names.map((name) => texts.get(name) ?? null)],
    )
    return (rowCount ?? 0) > 0
  }
  const [queues, exchanges] = [
    await save('queues', 'queue', namesOf(declared.queues)),
    await save('exchanges', 'exchange', namesOf(declared.exchanges)),
  ]
  return queues || exchanges
}
