/** JSON text as a response. */
export function jsonResponse(body: string, status = 200, headers: Record<string, string> = {}): Response {
  return new Response(body, { status, headers: { 'content-type': 'application/json', ...headers } })
}

/** The answer to a deletion. Made whole, because Elysia's own 204 has an empty body, which Deno refuses. */
export function noContent(): Response {
  return new Response(null, { status: 204 })
}
