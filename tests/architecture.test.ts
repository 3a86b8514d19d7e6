import { describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { posix } from 'node:path'
import { parseSync } from 'oxc-parser'

/*
 * The rules of the house (DESIGN section 4), as data.
 */

const BELOW_SUBMIT = ['runtime', 'task', 'files', 'store', 'broker']
const BELOW_API = [...BELOW_SUBMIT, 'submit', 'dispatch', 'execution', 'topology', 'schedule', 'sources']

/** Who may import whom, type-only imports included; a room is a folder of src/, an entry file, or db. */
const MAY_IMPORT: Record<string, readonly string[] | 'anything'> = {
  runtime: [],
  task: ['runtime'],
  files: ['runtime', 'task'],
  store: ['runtime', 'task', 'db'],
  broker: ['runtime', 'task'],
  submit: BELOW_SUBMIT,
  dispatch: [...BELOW_SUBMIT, 'submit'],
  execution: [...BELOW_SUBMIT, 'submit'],
  topology: [...BELOW_SUBMIT, 'submit'],
  schedule: [...BELOW_SUBMIT, 'submit'],
  sources: [...BELOW_SUBMIT, 'submit'],
  api: BELOW_API,
  cli: BELOW_API,
  dashboard: ['api'],
  targets: ['task', 'files', 'runtime'],
  db: [],
  'config.ts': ['runtime', 'config'],
  config: ['runtime'],
  'thread.ts': ['targets', 'task', 'runtime'],
  'app.ts': 'anything',
  app: 'anything',
  'main.ts': ['app.ts', 'app', 'cli', 'config.ts', 'runtime'],
}

/** Imports between rooms that may only be `import type`. */
const TYPES_ONLY = [['dashboard', 'api']]

/** What a file may not reach, through whatever other files. */
const NEVER_REACHES: Record<string, readonly string[]> = {
  'src/thread.ts': ['store', 'broker', 'db'],
  // A process without a database, and without an API of its own.
  'src/app/worker.ts': ['store', 'db', 'api'],
}

/** Packages (and what lies in them) that only files whose path matches may import. */
const ONLY_IN: { module: RegExp; path: RegExp }[] = [
  { module: /^(elysia|@elysiajs\/.+)$/, path: /^src\/api\// },
  { module: /^kysely$/, path: /^(src\/store|db)\// },
  { module: /^(pg|pg-.+)$/, path: /^(src\/store|src\/targets\/table|db)\// },
  { module: /^(basic-ftp|ssh2|ssh2-sftp-client)$/, path: /^src\/files\/remote\// },
  { module: /^@cloudamqp\/amqp-client$/, path: /^src\/broker\/rabbitmq/ },
  { module: /^bun(:.+)?$/, path: /^src\/runtime\/serve\.ts$/ },
]
const MAY_READ_ENVIRONMENT = /^src\/config\.ts$/
const MAY_USE_BUN = /^src\/runtime\/serve\.ts$/

const MAX_LINES = 400
const FORBIDDEN_NAME = /(^|[-_./])(utils?|helpers?|common|managers?|misc)([-_./]|$)/
const MAY_RE_EXPORT = /^db\/migrations\/index\.ts$/

/*
 * How they are checked.
 */

type Node = { type: string; [key: string]: unknown }
type Files = ReadonlyMap<string, string>

interface Import {
  specifier: string
  typeOnly: boolean
  /** The `type` of `with { type: '...' }`. */
  attribute: string | undefined
}

/** Everything that breaks a rule, as sentences. `exists` tells whether a file that is not among `files` is there. */
function violations(files: Files, exists: (path: string) => boolean): string[] {
  const broken: string[] = []
  const edges = new Map<string, string[]>()
  for (const [path, text] of files) {
    const { program, errors } = parseSync(path, text)
    if (errors.length > 0) broken.push(`${path} cannot be parsed: ${errors[0]?.message}`)
    const nodes = [...walk(program as unknown as Node)]
    const imports = nodes.flatMap(importOf)
    edges.set(
      path,
      imports.filter(isLocal).map(({ specifier }) => resolveFrom(path, specifier)),
    )
    broken.push(
      ...namingViolations(path, text),
      ...nodes.flatMap((node) => nodeViolations(path, node)),
      ...imports.flatMap((found) =>
        isLocal(found) ? localViolations(path, found, files, exists) : packageViolations(path, found),
      ),
    )
  }
  for (const [start, rooms] of Object.entries(NEVER_REACHES)) broken.push(...reachViolations(start, rooms, edges))
  return broken
}

function namingViolations(path: string, text: string): string[] {
  const broken: string[] = []
  const lines = text.trimEnd().split('\n').length
  if (lines > MAX_LINES) broken.push(`${path} has ${lines} lines: at most ${MAX_LINES}`)
  if (FORBIDDEN_NAME.test(path)) broken.push(`${path} is named for no idea: see STYLE for forbidden names`)
  if (!(roomOf(path) in MAY_IMPORT))
    broken.push(`${path} lies in no room of the house: add "${roomOf(path)}" to MAY_IMPORT`)
  return broken
}

function localViolations(path: string, found: Import, files: Files, exists: (path: string) => boolean): string[] {
  const target = resolveFrom(path, found.specifier)
  const broken: string[] = []
  if (!target.endsWith('.ts') && found.attribute === undefined) {
    broken.push(`${path} imports "${found.specifier}": local imports end in .ts`)
  }
  if (!files.has(target) && !exists(target)) broken.push(`${path} imports "${found.specifier}", which does not exist`)
  const [from, to] = [roomOf(path), roomOf(target)]
  const allowed = MAY_IMPORT[from]
  if (from === to || allowed === 'anything' || allowed === undefined) return broken
  if (target.endsWith('.ts') && !allowed.includes(to)) {
    broken.push(`${path} imports ${target}: ${from} may import only ${allowed.join(', ') || 'nothing of the house'}`)
  }
  if (TYPES_ONLY.some(([importer, imported]) => importer === from && imported === to) && !found.typeOnly) {
    broken.push(`${path} imports ${target}: ${from} may import only types of ${to}`)
  }
  return broken
}

function packageViolations(path: string, { specifier }: Import): string[] {
  const name = specifier.startsWith('@') ? specifier.split('/').slice(0, 2).join('/') : specifier.split('/')[0]
  return ONLY_IN.filter((rule) => rule.module.test(name ?? '') && !rule.path.test(path)).map(
    (rule) => `${path} imports "${specifier}", which only files that match ${rule.path} may`,
  )
}

function nodeViolations(path: string, node: Node): string[] {
  const broken: string[] = []
  if (!MAY_READ_ENVIRONMENT.test(path) && readsEnvironment(node))
    broken.push(`${path} reads the environment: only config.ts may`)
  if (!MAY_USE_BUN.test(path)) {
    if (node.type === 'Identifier' && node.name === 'Bun') broken.push(`${path} uses Bun.*: only runtime/serve.ts may`)
    if (importOf(node).some(({ attribute }) => attribute === 'file')) {
      broken.push(`${path} imports a file asset: only runtime/serve.ts may`)
    }
  }
  const isReExport = node.type === 'ExportAllDeclaration' || (node.type === 'ExportNamedDeclaration' && node.source)
  const isIndex = path.endsWith('/index.ts')
  if (isReExport && !MAY_RE_EXPORT.test(path) && (isIndex || node.type === 'ExportAllDeclaration')) {
    broken.push(`${path} re-exports other files: import from where a thing is defined`)
  }
  return broken
}

/** `process.env`, `import.meta.env`, `{ env } = process` and `import { env } from 'node:process'`, however they are spelled. */
function readsEnvironment(node: Node): boolean {
  if (node.type === 'MemberExpression') {
    const object = node.object as Node
    const property = node.property as Node
    const name = node.computed ? property.value : property.name
    const owner = object.type === 'MemberExpression' ? (object.property as Node) : object
    return name === 'env' && (owner.name === 'process' || owner.name === 'Deno' || owner.type === 'MetaProperty')
  }
  if (node.type === 'VariableDeclarator') {
    const { id, init } = node as unknown as { id: Node; init: Node | null }
    if (id.type !== 'ObjectPattern' || init?.name !== 'process') return false
    return (id.properties as Node[]).some(({ key }) => (key as Node | undefined)?.name === 'env')
  }
  if (node.type !== 'ImportDeclaration' || !/^(node:)?process$/.test(sourceOf(node) ?? '')) return false
  return (node.specifiers as Node[]).some(({ imported }) => (imported as Node | undefined)?.name === 'env')
}

function reachViolations(start: string, rooms: readonly string[], edges: ReadonlyMap<string, string[]>): string[] {
  const broken: string[] = []
  const via = new Map<string, string | undefined>([[start, undefined]])
  for (const path of via.keys()) {
    if (rooms.includes(roomOf(path)))
      broken.push(`${start} reaches ${trail(via, path)}: it may never reach ${rooms.join(', ')}`)
    for (const next of edges.get(path) ?? []) if (!via.has(next)) via.set(next, path)
  }
  return broken
}

function trail(via: ReadonlyMap<string, string | undefined>, end: string): string {
  const steps: string[] = []
  for (let path: string | undefined = end; path !== undefined; path = via.get(path)) steps.unshift(path)
  return steps.slice(1).join(' -> ')
}

function* walk(value: unknown): Generator<Node> {
  if (Array.isArray(value)) for (const item of value) yield* walk(item)
  else if (typeof value === 'object' && value !== null) {
    if (typeof (value as Node).type === 'string') yield value as Node
    for (const child of Object.values(value)) if (typeof child === 'object') yield* walk(child)
  }
}

/** The import that a node makes: static, dynamic, re-export, or inside a type; none when its specifier is computed. */
function importOf(node: Node): Import[] {
  const specifier = sourceOf(node)
  if (specifier === undefined) return []
  const specifiers = (node.specifiers as Node[] | undefined) ?? []
  const allTypes = specifiers.length > 0 && specifiers.every((each) => (each.importKind ?? each.exportKind) === 'type')
  const typeOnly = node.type === 'TSImportType' || (node.importKind ?? node.exportKind) === 'type' || allTypes
  return [{ specifier, typeOnly, attribute: attributeOf(node) }]
}

function sourceOf(node: Node): string | undefined {
  const kinds = [
    'ImportDeclaration',
    'ExportNamedDeclaration',
    'ExportAllDeclaration',
    'ImportExpression',
    'TSImportType',
  ]
  if (!kinds.includes(node.type)) return undefined
  const value = (node.source as Node | null | undefined)?.value
  return typeof value === 'string' ? value : undefined
}

function attributeOf(node: Node): string | undefined {
  const attributes = [...walk(node.attributes), ...walk(node.options)]
  for (const { type, key, value } of attributes as { type: string; key?: Node; value?: Node }[]) {
    if ((type === 'ImportAttribute' || type === 'Property') && key?.name === 'type') return String(value?.value)
  }
  return undefined
}

const isLocal = ({ specifier }: Import) => specifier.startsWith('.') || specifier.startsWith('/')
const resolveFrom = (path: string, specifier: string) => posix.join(posix.dirname(path), specifier)

/** `src/api/routes/tasks.ts` lies in `api`, `src/app.ts` is a room of its own, all of db is `db`. */
function roomOf(path: string): string {
  const [top = '', second = ''] = path.split('/')
  return top === 'src' ? second : top
}

function readHouse(): Map<string, string> {
  const files = new Map<string, string>()
  for (const root of ['src', 'db']) {
    for (const name of readdirSync(root, { recursive: true, encoding: 'utf8' })) {
      if (name.endsWith('.ts')) files.set(posix.join(root, name), readFileSync(posix.join(root, name), 'utf8'))
    }
  }
  return files
}

describe('the house', () => {
  test('keeps its rules: levels, packages, environment, names and sizes', () => {
    const house = readHouse()
    expect(house.size).toBeGreaterThan(20)
    expect(violations(house, (path) => Bun.file(path).size > 0)).toEqual([])
  })
})

describe('the architecture test', () => {
  const none = () => false
  const brokenBy = (files: Record<string, string>) => violations(new Map(Object.entries(files)), none)
  const empty = (...paths: string[]) => Object.fromEntries(paths.map((path) => [path, '']))

  test('finds nothing wrong with a house in order', () => {
    expect(
      brokenBy({
        'src/main.ts': "import { start } from './app.ts'\nimport { load } from './config.ts'",
        'src/app.ts': "import { routes } from './api/routes.ts'\nimport { pool } from './store/database.ts'",
        'src/config.ts': 'export const port = process.env.PORT',
        'src/thread.ts': "import { run } from './targets/noop.ts'",
        'src/targets/noop.ts': "import type { Task } from '../task/task.ts'\nconst handler = await import(path)",
        'src/api/routes.ts': "import { Elysia } from 'elysia'\nexport type { Task } from '../task/task.ts'",
        'src/store/database.ts': "import { Pool } from 'pg'\nimport all from '../../db/migrations/index.ts'",
        'src/task/task.ts': '// Bun.serve and process.env may stand in comments\nexport const env = { process: 1 }',
        'db/migrations/index.ts': "export * from './0001.ts'",
        'db/migrations/0001.ts': "import { sql } from 'kysely'",
      }),
    ).toEqual([])
  })

  test.each<[string, Record<string, string>]>([
    ['task may import only runtime', { 'src/task/a.ts': "import '../store/b.ts'", ...empty('src/store/b.ts') }],
    ['api may import only', { 'src/api/a.ts': "import type { B } from '../cli/b.ts'", ...empty('src/cli/b.ts') }],
    [
      'dispatch may import only',
      { 'src/dispatch/a.ts': "let b: import('../execution/b.ts').B", ...empty('src/execution/b.ts') },
    ],
    ['targets may import only', { 'src/targets/a.ts': "await import('../submit/b.ts')", ...empty('src/submit/b.ts') }],
    [
      'runtime may import only nothing',
      { 'src/runtime/a.ts': "export { b } from '../task/b.ts'", ...empty('src/task/b.ts') },
    ],
    ['only types of api', { 'src/dashboard/a.ts': "import { b } from '../api/b.ts'", ...empty('src/api/b.ts') }],
    ['which does not exist', { 'src/task/a.ts': "import './gone.ts'" }],
    ['local imports end in .ts', { 'src/task/a.ts': "import './b'", ...empty('src/task/b') }],
    ['no room of the house', empty('src/stuff/a.ts')],
    ['named for no idea', empty('src/task/string-utils.ts')],
    ['named for no idea', empty('src/api/helpers/a.ts')],
    ['at most 400', { 'src/task/a.ts': '// line\n'.repeat(401) }],
    ['cannot be parsed', { 'src/task/a.ts': 'const = 1' }],
    ['imports "elysia"', { 'src/store/a.ts': "import type { Elysia } from 'elysia'" }],
    ['imports "kysely/migration"', { 'src/api/a.ts': "import 'kysely/migration'" }],
    ['imports "pg"', { 'src/dispatch/a.ts': "const pg = await import('pg')" }],
    ['imports "@cloudamqp/amqp-client"', { 'src/broker/in-process.ts': "import '@cloudamqp/amqp-client'" }],
    ['imports "basic-ftp"', { 'src/sources/a.ts': "await import('basic-ftp')" }],
    ['imports "ssh2"', { 'src/files/a.ts': "import type { Client } from 'ssh2'" }],
    ['imports "bun:sqlite"', { 'src/store/a.ts': "import 'bun:sqlite'" }],
    ['uses Bun.*', { 'src/api/a.ts': 'Bun.serve({})' }],
    ['uses Bun.*', { 'src/api/a.ts': 'globalThis.Bun?.gc()' }],
    [
      'a file asset',
      { 'src/api/a.ts': "import logo from './logo.svg' with { type: 'file' }", ...empty('src/api/logo.svg') },
    ],
    ['reads the environment', { 'src/app.ts': 'process.env.HOME' }],
    ['reads the environment', { 'src/app.ts': "globalThis.process['env']" }],
    ['reads the environment', { 'src/app.ts': 'const { env } = process' }],
    ['reads the environment', { 'src/app.ts': "import { env } from 'node:process'" }],
    ['re-exports other files', { 'src/task/index.ts': "export { a } from './a.ts'", ...empty('src/task/a.ts') }],
    ['re-exports other files', { 'src/task/b.ts': "export * from './a.ts'", ...empty('src/task/a.ts') }],
  ])('says "%s"', (sentence, files) => {
    const broken = brokenBy(files)
    expect(broken).toHaveLength(1)
    expect(broken[0]).toContain(sentence)
  })

  test('follows a thread through other files to the store', () => {
    const broken = brokenBy({
      'src/thread.ts': "import './targets/a.ts'",
      'src/targets/a.ts': "import type { B } from '../task/b.ts'",
      'src/task/b.ts': "import type { C } from '../store/c.ts'",
      'src/store/c.ts': '',
    })
    expect(broken.at(-1)).toBe(
      'src/thread.ts reaches src/targets/a.ts -> src/task/b.ts -> src/store/c.ts: it may never reach store, broker, db',
    )
  })
})
