/** Which methods a path takes, for those that the router does not know. */
export interface RouteTable {
  /** Sorted; empty when no route has this path. */
  methodsOf(pathname: string): string[]
  /** The route that a request goes to, in bounded words: `unknown` for a path without one, `OTHER` for a method of nobody. */
  routeOf(method: string, url: string): { route: string; method: string }
}

export function routeTable(routes: readonly { method: string; path: string }[]): RouteTable {
  const patterns = new Map<string, { pattern: RegExp; methods: Set<string> }>()
  for (const { method, path } of routes) {
    const source = path
      .replace(/\/$/, '')
      .split('/')
      .map((part) => (part === '*' ? '.*' : part.startsWith(':') ? '[^/]+' : RegExp.escape(part)))
      .join('/')
    const entry = patterns.get(source) ?? { pattern: new RegExp(`^${source}/?$`), methods: new Set() }
    patterns.set(source, entry)
    entry.methods.add(method)
    if (method === 'GET') entry.methods.add('HEAD')
  }
  const routeOf = routeFinder(routes)
  return {
    routeOf,
    methodsOf(pathname) {
      const methods = [...patterns.values()].flatMap((entry) =>
        entry.pattern.test(pathname) ? [...entry.methods] : [],
      )
      return [...new Set(methods)].sort()
    },
  }
}

const METHODS = new Set(['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])

interface Branch {
  words: Map<string, Branch>
  parameter?: Branch
  route?: string
  /** Of a pattern that goes on with `*`: it takes the rest of the path, whatever it is. */
  restRoute?: string
}

/** Finds a pattern by walking the path's parts, a word before a parameter: it is asked for every request. */
function routeFinder(routes: readonly { path: string }[]): RouteTable['routeOf'] {
  const root: Branch = { words: new Map() }
  for (const { path } of routes) {
    let branch = root
    const pattern = path.replace(/\/$/, '')
    for (const part of pattern.replace(/\/\*$/, '').split('/')) {
      let next = part.startsWith(':') ? branch.parameter : branch.words.get(part)
      next ??= { words: new Map() }
      if (part.startsWith(':')) branch.parameter = next
      else branch.words.set(part, next)
      branch = next
    }
    if (pattern.endsWith('/*')) branch.restRoute = pattern
    else branch.route = pattern
  }
  const find = (parts: string[], at: number, branch: Branch): string | undefined => {
    const part = parts[at]
    if (part === undefined) return branch.route
    const word = branch.words.get(part)
    return (
      (word && find(parts, at + 1, word)) ??
      (branch.parameter && part !== '' ? find(parts, at + 1, branch.parameter) : undefined) ??
      branch.restRoute
    )
  }
  return (method, url) => {
    const path = pathOf(url)
    return {
      route: find(path.split('/'), 0, root) ?? 'unknown',
      method: METHODS.has(method) ? method : 'OTHER',
    }
  }
}

/** The path of an absolute URL, without query and last slash. */
function pathOf(url: string): string {
  const from = url.indexOf('/', url.indexOf('://') + 3)
  if (from === -1) return ''
  const query = url.indexOf('?', from)
  const path = query === -1 ? url.slice(from) : url.slice(from, query)
  return path.endsWith('/') ? path.slice(0, -1) : path
}
