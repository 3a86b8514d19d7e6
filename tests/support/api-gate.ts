import { type HttpServer, serve } from '../../src/runtime/serve.ts'
import { silent } from './services.ts'

/** A proxy in front of a server's API that can keep calls from arriving, or their answers from coming back. */
export interface ApiGate extends AsyncDisposable {
  readonly url: string
  /**
   * From now on calls of `path` get no answer: with `arrives` they reach the server, else they do not. Resolves when the
   * first one has come that far.
   */
  hold(path: string, arrives: boolean): Promise<void>
}

export async function startApiGate(server: string): Promise<ApiGate> {
  let held: { path: string; arrives: boolean; reached: () => void } | undefined
  const proxy: HttpServer = serve({
    host: '127.0.0.1',
    port: 0,
    log: silent,
    async fetch(request) {
      const { pathname, search } = new URL(request.url)
      const body = request.method === 'GET' ? null : await request.text()
      const holding = held?.path === pathname ? held : undefined
      const forward = () =>
        fetch(server + pathname + search, {
          method: request.method,
          headers: request.headers,
          body,
          signal: request.signal,
        })
      if (!holding) return forward()
      if (holding.arrives) await forward()
      holding.reached()
      return new Promise<Response>(() => {})
    },
  })
  return {
    url: proxy.url,
    hold: (path, arrives) => new Promise((reached) => (held = { path: `/api/v1${path}`, arrives, reached })),
    [Symbol.asyncDispose]: () => proxy.stop(0),
  }
}
