import { readFile } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import { bareHost } from '../runtime/egress/egress.ts'
import { isLoopbackHost } from '../runtime/egress/ip-class.ts'
import { messageOf } from '../runtime/errors.ts'
import { queryOf } from './command.ts'
import type { CliDeps, Settings } from './deps.ts'
import { EXIT, Failure } from './failure.ts'

/** Longshore's API over HTTP. Every call rejects with a `Failure` that says what to do. */
export interface Client {
  readonly url: string
  /** The answer's JSON. */
  call<T>(method: string, path: string, body?: unknown): Promise<T>
  /** The answer's very text, so that large integers in payloads stay what they are; `body` is JSON text. */
  text(method: string, path: string, body?: string, contentType?: string): Promise<string>
}

/** What the API refused, with its code and fields (RFC 9457). */
export class Refusal extends Failure {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | undefined,
    readonly errors: readonly { path: string; message: string }[] = [],
  ) {
    super(message)
  }
}

const PATIENCE_MS = 60_000

/** A client for LONGSHORE_URL (or `url`) with LONGSHORE_KEY, else the admin key that lies in DATA_DIR. */
export async function openClient(deps: CliDeps, { url: given }: { url?: string | undefined } = {}): Promise<Client> {
  const { settings } = await deps.load(given === undefined ? {} : { LONGSHORE_URL: given })
  return clientFor(settings.apiUrl ?? urlOf(settings), await keyFor(settings))
}

/** Where a node with these settings listens, as seen from this machine. */
export function urlOf({ host, port }: Pick<Settings, 'host' | 'port'>): string {
  const name = host === '0.0.0.0' ? '127.0.0.1' : host === '::' ? '::1' : host
  return `http://${isIP(name) === 6 ? `[${name}]` : name}:${port || 8080}`
}

async function keyFor({ apiKey, apiUrl, dataDir }: Settings): Promise<string> {
  if (apiKey) return apiKey.reveal()
  // The key of this machine's node opens nothing elsewhere, and others need not learn it.
  if (apiUrl !== undefined && !isLoopbackHost(bareHost(new URL(apiUrl)))) {
    throw new Failure(`LONGSHORE_URL is ${apiUrl}, which is not this machine: set LONGSHORE_KEY, too`, EXIT.usage)
  }
  const file = join(dataDir, 'admin.key')
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    const why = code === 'ENOENT' ? 'is not there' : `cannot be read (${code})`
    throw new Failure(
      `No key: LONGSHORE_KEY is not set and ${file} ${why}. Run the command where the node runs (or with its DATA_DIR), or set LONGSHORE_KEY.`,
      EXIT.usage,
    )
  }
}

export function clientFor(url: string, key: string): Client {
  const base = url.replace(/\/+$/, '')

  async function text(method: string, path: string, body?: string, contentType = 'application/json'): Promise<string> {
    let response: Response
    let answer: string
    try {
      response = await fetch(`${base}/api/v1${path}`, {
        method,
        redirect: 'manual',
        headers: { authorization: `Bearer ${key}`, ...(body !== undefined && { 'content-type': contentType }) },
        ...(body !== undefined && { body }),
        signal: AbortSignal.timeout(PATIENCE_MS),
      })
      answer = await response.text()
    } catch (error) {
      throw new Failure(
        `Longshore does not answer at ${base} (${whyNot(error)}). Does a node run there (longshore start)? LONGSHORE_URL or --url names another place.`,
        EXIT.unreachable,
        { cause: error },
      )
    }
    const isJson = response.headers.get('content-type')?.startsWith('application/json')
    if (response.status === 204 || (response.ok && isJson)) return answer
    throw refusalOf(base, response, answer)
  }

  return {
    url: base,
    text,
    async call<T>(method: string, path: string, body?: unknown) {
      const answer = await text(method, path, body === undefined ? undefined : JSON.stringify(body))
      return (answer === '' ? undefined : JSON.parse(answer)) as T
    },
  }
}

/** Every item of a list, page by page. */
export async function allItems<T>(client: Client, path: string): Promise<T[]> {
  const items: T[] = []
  let after: string | undefined
  do {
    const query = queryOf({ limit: 500, after })
    const page: { items: T[]; next: string | null } = await client.call('GET', path + query)
    items.push(...page.items)
    after = page.next ?? undefined
  } while (after !== undefined)
  return items
}

/** The runtime's message without its advice. */
function whyNot(error: unknown): string {
  const message = messageOf(error).replace(/ Is the computer able to access the url\?$/, '')
  return message.replace(/\.$/, '')
}

interface ProblemBody {
  title?: string
  detail?: string
  code?: string
  errors?: { path: string; message: string }[]
}

function refusalOf(base: string, response: Response, answer: string): Failure {
  const { status, headers } = response
  if (!headers.get('content-type')?.startsWith('application/problem+json')) {
    return new Failure(
      `${base} answers ${status}, but not as Longshore does: is LONGSHORE_URL right?`,
      EXIT.unreachable,
    )
  }
  const { title = '', detail = title, code, errors = [] } = JSON.parse(answer) as ProblemBody
  if (status === 401) {
    return new Refusal(`${base} does not know this key: set LONGSHORE_KEY to one of its keys`, status, code)
  }
  const fields = errors.map(({ path, message }) => `${path}: ${message}`).filter((line) => !detail.includes(line))
  return new Refusal([detail, ...fields].join('\n  '), status, code, errors)
}
