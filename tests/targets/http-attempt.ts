import { createEgress } from '../../src/runtime/egress/egress.ts'
import type { EgressRules } from '../../src/runtime/egress/rules.ts'
import { createHttpTarget } from '../../src/targets/http.ts'
import type { RunTarget } from '../../src/task/attempt/attempt.ts'
import type { Execution } from '../../src/task/executor.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import type { HttpTarget } from '../../src/task/target/target.ts'
import { targetContext } from '../support/target-context.ts'

export const TASK_ID = '0199f3a2-7c41-7d33-9f0e-5b1f6c2d8a11'

/** An http target that may reach loopback, where every name in `names` resolves to the given addresses. */
export function httpTarget(
  names: Record<string, string[]> = {},
  rules: EgressRules = { allow: [], allowPrivate: true },
): RunTarget {
  const resolve = async (hostname: string) => {
    const addresses = names[hostname]
    if (!addresses) throw Object.assign(new Error(`getaddrinfo ENOTFOUND ${hostname}`), { code: 'ENOTFOUND' })
    return addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }))
  }
  return createHttpTarget({ egress: createEgress(rules, resolve) })
}

/** Runs one attempt. */
export function attemptHttp(
  target: Omit<HttpTarget, 'type'>,
  {
    run = httpTarget(),
    signal = new AbortController().signal,
    ...execution
  }: Partial<Execution> & { run?: RunTarget; signal?: AbortSignal } = {},
): Promise<Outcome> {
  const context = targetContext({ signal })
  const whole: Execution = {
    id: TASK_ID,
    queue: 'default',
    type: null,
    attempt: 1,
    payload: '{"n":1}',
    target: { type: 'http', ...target },
    timeoutMs: 30_000,
    priority: 0,
    createdAt: '2026-01-01T00:00:00.000Z',
    parentId: null,
    origin: 'api',
    alone: false,
    ...execution,
  }
  return run(whole, context)
}

/** Runs one attempt in a process of its own, for what only a process's environment decides. */
export async function attemptHttpWith(
  env: Record<string, string>,
  target: Omit<HttpTarget, 'type'>,
  names: Record<string, string[]> = {},
): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, import.meta.path, JSON.stringify({ target, names })], {
    env: { PATH: process.env.PATH ?? '', ...env },
    stderr: 'inherit',
  })
  const text = await new Response(child.stdout).text()
  await child.exited
  return JSON.parse(text) as Outcome
}

if (import.meta.main) {
  const { target, names } = JSON.parse(process.argv[2] ?? '')
  console.log(JSON.stringify(await attemptHttp(target, { run: httpTarget(names) })))
}
