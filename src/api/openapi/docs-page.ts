import { createHash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'

/** The files of Swagger UI that the page needs, with their types. */
const ASSETS: Record<string, string> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
}

/** Reads a file of swagger-ui-dist; the compiled binary gives its embedded copies instead. */
export type ReadAsset = (name: string) => Promise<Uint8Array>

/** From the installed package. */
export const installedAsset: ReadAsset = (name) =>
  readFile(fileURLToPath(new URL(name, import.meta.resolve('swagger-ui-dist/package.json'))))

const PAGE = `<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Longshore API</title>
<link rel="icon" href="data:,"><link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script></body>
</html>
`
const START = `SwaggerUIBundle({ url: '/openapi.json', dom_id: '#swagger-ui', deepLinking: true, tryItOutEnabled: true, validatorUrl: null })
`
/** Nothing on the page may ask anybody else, whatever the document says. */
const POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"

export function docsPage(): Response {
  return new Response(PAGE, {
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'cache-control': 'no-cache',
      'content-security-policy': POLICY,
      'x-content-type-options': 'nosniff',
    },
  })
}

/** Gives `/docs/<name>`; undefined for a file that the page does not use. */
export function docsAssets(
  read: ReadAsset,
): (name: string, ifNoneMatch: string | null) => Promise<Response | undefined> {
  const kept = new Map<string, Promise<{ bytes: Uint8Array<ArrayBuffer>; etag: string }>>()
  const load = async (name: string) => {
    const bytes = new Uint8Array(name === 'start.js' ? Buffer.from(START) : await read(name))
    return { bytes, etag: `"${createHash('sha256').update(bytes).digest('base64url').slice(0, 22)}"` }
  }
  return async (name, ifNoneMatch) => {
    const type =
      name === 'start.js' ? ASSETS['swagger-ui-bundle.js'] : Object.hasOwn(ASSETS, name) ? ASSETS[name] : undefined
    if (type === undefined) return undefined
    let asset = kept.get(name)
    if (!asset) {
      asset = load(name)
      kept.set(name, asset)
      asset.catch(() => kept.delete(name))
    }
    const { bytes, etag } = await asset
    const headers = {
      'content-type': type,
      'cache-control': 'private, max-age=3600',
      etag,
      'x-content-type-options': 'nosniff',
    }
    if (ifNoneMatch === etag) return new Response(null, { status: 304, headers })
    return new Response(bytes, { headers })
  }
}
