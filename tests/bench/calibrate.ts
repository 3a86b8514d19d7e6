import type { Pool } from 'pg'
import { v7 as uuidv7 } from 'uuid'
import { claimDueTasks } from '../../src/store/tasks/claim/claim.ts'
import { settleTasks } from '../../src/store/tasks/settle.ts'
import { DEFAULT_RETRY_POLICY } from '../../src/task/retry-policy.ts'
import { attemptOf } from '../../src/task/task.ts'
import { rate } from './load.ts'

/** Claims and settles what waits in `queue` with Longshore's own statements and nothing else; gives tasks a second. */
export async function claimAndSettle(pool: Pool, queue: string, batch: number): Promise<number> {
  const node = uuidv7()
  let done = 0
  const began = performance.now()
  for (;;) {
    const tasks = await claimDueTasks(pool, { claimId: uuidv7(), node, queue, limit: batch })
    if (tasks.length === 0) return (done / (performance.now() - began)) * 1_000
    const ended = tasks.map((task) => ({ ...attemptOf(task), outcome: { kind: 'succeeded' as const, result: 'null' } }))
    await settleTasks(pool, node, ended, () => DEFAULT_RETRY_POLICY)
    done += tasks.length
  }
}

/** POSTs a second that Elysia takes with a validated body and nothing behind it, asked by 50 callers. */
export async function bareElysia(): Promise<number> {
  const server = Bun.spawn(['bun', `${import.meta.dir}/./bare-elysia.ts`], {
    env: { ...process.env, NODE_ENV: 'production' },
    stdout: 'pipe',
  })
  try {
    const { value } = await server.stdout.getReader().read()
    const url = new TextDecoder().decode(value).trim()
    const body = JSON.stringify({ payload: { n: 1 } })
    const post = async () => {
      const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body })
      await response.text()
    }
    await rate(2_000, 50, post)
    return await rate(20_000, 50, post)
  } finally {
    server.kill()
    await server.exited
  }
}
