import type { Pool } from 'pg'
import { submit } from '../e2e/installation.ts'
import type { NodeProcess } from '../support/node-process.ts'
import { until } from '../support/until.ts'

/** Sends tasks of four seconds through `api` until the node `id` has begun one: what is done to it then hits it at work. */
export async function untilAtWork(id: string | undefined, queue: string, api: NodeProcess, pool: Pool): Promise<void> {
  const taker = async () => {
    const task = await submit(api, { queue, payload: null, target: { type: 'noop', delay: '4s' } })
    return until(
      async () => {
        const { rows } = await pool.query<{ node: string }>(
          `select node from tasks where id = $1 and status = 'running'`,
          [task],
        )
        return rows[0]?.node
      },
      { what: `task ${task} to be running` },
    )
  }
  await until(async () => (await taker()) === id, { what: `${id} to have work in hand`, timeoutMs: 60_000 })
}
