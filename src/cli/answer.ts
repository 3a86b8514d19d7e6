import type { Client } from './client.ts'
import type { ApiOptions } from './command.ts'
import { print, printJson } from './output.ts'

/** Asks the API, and writes its JSON as it came with `--json`, else what `view` makes of it. Rejects as the client does. */
export async function printAnswer<T>(
  client: Client,
  { json }: ApiOptions,
  request: readonly [method: string, path: string, body?: string],
  view: (answer: T) => string,
): Promise<void> {
  const text = await client.text(...request)
  if (json) printJson(text)
  else print(view(JSON.parse(text) as T))
}
