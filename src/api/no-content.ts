/** The answer to a deletion. Made whole, because Elysia's own 204 has an empty body, which Deno refuses. */
export function noContent(): Response {
  return new Response(null, { status: 204 })
}
