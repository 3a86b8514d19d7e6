import { v7 as uuidv7 } from 'uuid'
import type { FinalStatus } from '../../../task/status.ts'
import { prepared, type Queryable } from '../../database/statement.ts'
import { GONE } from '../../nodes.ts'

/** Where it is told that a task of an exchange is over: `{ id, status }`, with the status in the listeners' own words. */
export interface Completions {
  queue: string
  words: Record<FinalStatus, string>
}

/** The setting that holds them, by exchange. */
export const COMPLETIONS = 'completions'

/**
 * Says of parents that became final just now that they did: a task each, in the transaction that ended them, so that
 * each completion is told once. Those of other exchanges are passed over, and so is a queue that is gone.
 */
export async function tellCompletions(tx: Queryable, parents: string[]): Promise<void> {
  if (parents.length === 0) return
  await prepared(tx, 'tell-completions', TELL, [parents, parents.map(() => uuidv7()), GONE])
}

/** Counted for no node in particular, as nobody's request stands behind it. */
const TELL = `
  with told as (
    insert into tasks (id, queue, type, payload, priority, due_at, max_attempts, origin)
    select n.id, q.name, 'completion', format('{"id":"%s","status":%s}', p.id, c.way -> 'words' -> p.status::text)::json,
      0, now(), (q.retry ->> 'maxAttempts')::int, p.origin
    from unnest($1::uuid[], $2::uuid[]) as n(parent, id)
      join tasks p on p.id = n.parent
      join settings s on s.name = '${COMPLETIONS}'
      cross join lateral (select s.value -> p.exchange as way) c
      join queues q on q.name = c.way ->> 'queue'
    order by n.id
    returning queue, origin
  )
  insert into counters (node, queue, origin, accepted)
  select $3::uuid, queue, origin, count(*) from told group by queue, origin order by queue, origin
  on conflict (node, queue, origin) do update set accepted = counters.accepted + excluded.accepted`
