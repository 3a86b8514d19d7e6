import { messageOf } from '../../runtime/errors.ts'

const WITHIN_MS = 10_000
const MOST_BYTES = 16 * 1024 * 1024
const LIST_PATH = '/ftp/api/list/'

/** Where the list is: what is configured, with the older system's path when it has none. */
export function registryUrl(configured: string): URL {
  const url = new URL(configured)
  if (url.pathname === '/' || url.pathname === '') url.pathname = LIST_PATH
  return url
}

/** The list's text, or why there is none. The error holds nothing of the answer, and no credentials. */
export async function fetchRegistry(
  configured: string,
  signal: AbortSignal,
): Promise<{ text: string } | { error: string }> {
  const url = registryUrl(configured)
  const { username, password } = url
  url.username = ''
  url.password = ''
  const late = AbortSignal.timeout(WITHIN_MS)
  try {
    const response = await fetch(url, {
      headers: {
        accept: 'application/json',
        ...(username && {
          authorization: `Basic ${btoa(`${decodeURIComponent(username)}:${decodeURIComponent(password)}`)}`,
        }),
      },
      redirect: 'manual',
      signal: AbortSignal.any([signal, late]),
    })
    if (!response.ok) {
      await response.body?.cancel()
      return { error: `The registry at ${url.host} answered ${response.status}` }
    }
    return await bounded(response)
  } catch (error) {
    if (signal.aborted) throw error
    const why = late.aborted ? `did not answer within ${WITHIN_MS / 1_000} s` : `cannot be reached: ${messageOf(error)}`
    return { error: `The registry at ${url.host} ${why}` }
  }
}

async function bounded(response: Response): Promise<{ text: string } | { error: string }> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    if (bytes > MOST_BYTES) return { error: `The registry's answer has more than ${MOST_BYTES} bytes` }
    chunks.push(chunk)
  }
  return { text: Buffer.concat(chunks).toString('utf8') }
}
