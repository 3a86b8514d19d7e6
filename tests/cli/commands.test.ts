import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { type NodeFolder, type NodeProcess, nodeFolder, startNode } from '../support/node-process.ts'
import { type Sink, startSink } from '../support/sink.ts'
import { until } from '../support/until.ts'
import { longshore } from './cli.ts'

let folder: NodeFolder
let node: NodeProcess
let sink: Sink
let url: string

beforeAll(async () => {
  folder = await nodeFolder()
  writeFileSync(
    join(folder.path, 'handlers', 'steps.mjs'),
    `export default async (payload, { log, progress }) => {
      for (let n = 1; n <= 3; n++) { log('step ' + n); progress({ done: n, total: 3 }) }
      return { steps: payload.steps }
    }\n`,
  )
  node = await startNode(folder)
  url = await node.listening
  sink = await startSink()
}, 30_000)

afterAll(async () => {
  await sink.close()
  await node.stop()
  await folder[Symbol.asyncDispose]()
}, 30_000)

/** As a user in the node's folder: the key is the one in DATA_DIR. */
const run = (args: string[], env: Record<string, string> = {}, input?: string) =>
  longshore(args, { cwd: folder.path, env: { LONGSHORE_URL: url, ...env }, ...(input !== undefined && { input }) })

describe('task', () => {
  test('submit delivers to a URL, leaves the payload as it was typed, and --wait follows it to its end', async () => {
    const ran = await run(['task', 'submit', '--http', sink.url('/hook'), '-p', '{"n":12345678901234567890}', '--wait'])
    expect(ran).toMatchObject({ code: 0 })
    expect(ran.out).toContain('succeeded')
    expect(sink.requests.at(-1)?.body).toBe('{"n":12345678901234567890}')
  })

  test('submit reads the payload from a file and from standard input', async () => {
    writeFileSync(join(folder.path, 'payload.json'), '{"steps":7}')
    const file = await run(['task', 'submit', '--handler', 'steps', '--payload', '@payload.json', '--wait', '--json'])
    expect(file.json()).toMatchObject({ status: 'succeeded', result: { steps: 7 } })
    const piped = await run(
      ['task', 'submit', '--handler', 'steps', '--payload', '-', '--wait', '--json'],
      {},
      '{"steps":8}',
    )
    expect(piped.json()).toMatchObject({ status: 'succeeded', result: { steps: 8 } })
  })

  test('submit sends to an exchange, and refuses a queue beside it', async () => {
    await node.call('PUT', '/exchanges/cli', { type: 'topic' })
    for (const queue of ['cli-a', 'cli-b']) {
      await node.call('PUT', `/queues/${queue}`, {})
      await node.call('POST', '/consumers', { queue, target: { type: 'noop' } })
      await node.call('PUT', '/exchanges/cli/bindings', { queue, routingKey: '*.eu' })
    }
    const sent = await run(['task', 'submit', '-x', 'cli', '-k', 'new.eu', '--wait', '--json'])
    expect(sent.json()).toMatchObject({ status: 'succeeded', exchange: 'cli', children: { total: 2, succeeded: 2 } })
    expect(await run(['task', 'submit', '-x', 'cli', '-k', 'us'])).toMatchObject({ code: 1 })
    expect(await run(['task', 'submit', '-x', 'cli', '-q', 'cli-a'])).toMatchObject({ code: 2 })
  })

  test('watch tells the log lines and the result, and ends with 1 when the task did not succeed', async () => {
    const { out } = await run(['task', 'submit', '--handler', 'steps', '--payload', '{"steps":1}'])
    const watched = await run(['task', 'watch', out.trim()])
    expect(watched.code).toBe(0)
    expect(watched.out).toContain('step 3')
    expect(watched.out).toContain('{"steps":1}')
    const dead = await run(['task', 'submit', '--target', '{"type":"noop","deadRate":1}', '--wait'])
    expect(dead.code).toBe(1)
    expect(dead.err).toContain('The task is dead: noop failed for good')
    const slow = await run(['task', 'submit', '--target', '{"type":"noop"}', '--delay', '1h'])
    const tired = await run(['task', 'watch', slow.out.trim(), '--timeout', '300ms'])
    expect(tired).toMatchObject({ code: 1, err: 'The task is not final after 300ms; it goes on\n' })
    expect(await run(['task', 'cancel', slow.out.trim()])).toMatchObject({ code: 0 })
  })

  test('get tells the story, list filters, and --json gives what the API says', async () => {
    const { out } = await run([
      'task',
      'submit',
      '--target',
      '{"type":"noop","deadRate":1}',
      '-t',
      'storied',
      '-w',
      '--json',
    ])
    const { id } = JSON.parse(out) as { id: string }
    const story = await run(['task', 'get', id])
    expect(story.out).toMatch(/^status +dead$/m)
    expect(story.out).toMatch(/^ +1 +failed +.*as its deadRate asks$/m)
    const list = await run(['task', 'list', '--type', 'storied', '--status', 'dead,cancelled', '--json'])
    expect(list.json<{ items: { id: string }[] }>().items.map((task) => task.id)).toEqual([id])
    expect((await run(['task', 'list', '--type', 'storied'])).out).toContain(id)
    expect((await run(['task', 'list', '--type', 'unheard-of'])).out).toBe('No such tasks\n')
  })

  test('replay and cancel take ids, and filters with a dry run', async () => {
    const submit = ['task', 'submit', '-t', 'bulk', '--target', '{"type":"noop"}', '--delay', '1h']
    const ids = [await run(submit), await run(submit), await run(submit)].map(({ out }) => out.trim())
    expect(await run(['task', 'cancel', ids[0] as string])).toMatchObject({ code: 0, out: `${ids[0]}  cancelled\n` })
    const again = await run(['task', 'cancel', ids[0] as string, ids[1] as string])
    expect(again).toMatchObject({ code: 1, out: `${ids[1]}  cancelled\n` })
    expect(again.err).toContain('is final already')
    const dry = await run(['task', 'cancel', '--type', 'bulk', '--dry-run'])
    expect(dry.out).toContain('1 in all')
    expect((await run(['task', 'get', ids[2] as string, '--json'])).json()).toMatchObject({ status: 'pending' })
    expect((await run(['task', 'cancel', '--type', 'bulk'])).out).toBe('1 cancelled\n')
    expect((await run(['task', 'replay', '--type', 'bulk', '--json'])).json()).toMatchObject({
      outcomes: { replayed: 3 },
    })
    expect((await run(['task', 'cancel'])).code).toBe(2)
  })

  test('submit --file stores line by line in batches and says where to go on after a refusal', async () => {
    const line = (n: number) => JSON.stringify({ type: 'filed', payload: { n }, target: { type: 'noop' } })
    const good = [line(1), '', line(2), line(3)].join('\n')
    writeFileSync(
      join(folder.path, 'tasks.ndjson'),
      `${good}\n${JSON.stringify({ payload: 4, queue: 'nowhere' })}\n${line(5)}\n`,
    )
    const refused = await run(['task', 'submit', '--file', 'tasks.ndjson', '--batch-size', '3'])
    expect(refused.code).toBe(1)
    expect(refused.err).toContain('line 5 /queue: There is no queue "nowhere"')
    expect(refused.err).toContain('3 tasks before are stored. Go on with --from-line 5.')
    const rest = await run(['task', 'submit', '--file', 'tasks.ndjson', '--from-line', '6', '--json'])
    expect(rest.json()).toMatchObject({ submitted: 1 })
    expect((await run(['task', 'submit', '--file', '-', '--json'], {}, good)).json()).toMatchObject({ submitted: 3 })
    const list = await run(['task', 'list', '--type', 'filed', '--json'])
    expect(list.json<{ items: unknown[] }>().items).toHaveLength(7)
    expect((await run(['task', 'submit', '--file', 'gone.ndjson'])).err).toBe('Cannot read gone.ndjson (ENOENT)\n')
  })
})

test('queue set changes what is named and keeps the rest; pause, resume and purge work', async () => {
  await run(['queue', 'set', 'mail', '--max-attempts', '5', '--backoff', 'fixed', '--base', '30s'])
  const changed = await run(['queue', 'set', 'mail', '--keep-dead', '365d', '--json'])
  expect(changed.json()).toMatchObject({
    retry: { maxAttempts: 5, backoff: { kind: 'fixed', base: '30s' } },
    retention: { dead: '365d', succeeded: '7d' },
  })
  const delays = await run(['queue', 'set', 'mail', '--backoff', 'delays', '--delays', '1s,1m,1h', '--json'])
  expect(delays.json()).toMatchObject({
    retry: { maxAttempts: 5, backoff: { kind: 'delays', delays: ['1s', '1m', '1h'] } },
  })
  expect((await run(['queue', 'pause', 'mail'])).out).toBe('The queue "mail" is paused\n')
  await run(['task', 'submit', '-q', 'mail'])
  expect((await run(['queue', 'get', 'mail'])).out).toMatch(/^state +paused$/m)
  expect((await run(['queue', 'list'])).out).toMatch(/^mail .* paused$/m)
  expect((await run(['queue', 'resume', 'mail', '--json'])).json()).toMatchObject({ paused: false })
  expect((await run(['queue', 'purge', 'mail'])).code).toBe(2)
  expect((await run(['queue', 'purge', 'mail', '--yes'])).out).toBe('Cancelled 1 tasks\n')
  expect(await run(['queue', 'get', 'nowhere'])).toMatchObject({ code: 1, err: 'There is no queue "nowhere"\n' })
  expect((await run(['queue', 'set', 'mail', '--jitter', 'much'])).code).toBe(2)
})

test('schedule set, list, run, pause and resume', async () => {
  const task = '{"payload":{"big":12345678901234567890},"target":{"type":"noop"}}'
  const set = await run(['schedule', 'set', 'nightly', '-c', '30 2 * * *', '-z', 'Europe/Berlin', '--task', task])
  expect(set.out).toContain('30 2 * * * (Europe/Berlin)')
  expect((await run(['schedule', 'list'])).out).toMatch(/^nightly +30 2 \* \* \* +Europe\/Berlin/m)
  const ran = await run(['schedule', 'run', 'nightly'])
  const done = await run(['task', 'watch', ran.out.trim(), '--json'])
  expect(done.out).toContain('12345678901234567890')
  expect((await run(['schedule', 'pause', 'nightly', '--json'])).json()).toMatchObject({ paused: true })
  expect((await run(['schedule', 'resume', 'nightly'])).out).toStartWith('"nightly" fires next at ')
  expect((await run(['schedule', 'list', '--system'])).out).toContain('rescuer')
  expect((await run(['schedule', 'set', 'bad', '-c', 'soon', '--task', task])).err).toContain('cron')
})

test('keys, migrate and db url use the database of the running node and leave it running', async () => {
  const made = (await run(['keys', 'create', 'billing', '-s', 'submit,work', '--json'])).json<{
    id: string
    key: string
  }>()
  expect(made.key).toStartWith(`ls_${made.id}_`)
  // The node reads keys anew once a second at most.
  await until(
    async () => (await run(['task', 'submit', '--http', sink.url()], { LONGSHORE_KEY: made.key })).code === 0,
    {
      what: 'the node to know the new key',
    },
  )
  expect((await run(['queue', 'pause', 'default'], { LONGSHORE_KEY: made.key })).code).toBe(1)
  expect((await run(['keys', 'list'])).out).toMatch(new RegExp(`^${made.id} +billing +submit,work `, 'm'))
  expect((await run(['keys', 'revoke', made.id])).code).toBe(0)
  await until(async () => (await run(['task', 'list'], { LONGSHORE_KEY: made.key })).code === 1, {
    what: 'the node to refuse the revoked key',
  })
  expect((await run(['keys', 'revoke', made.id])).err).toBe(`There is no key "${made.id}"\n`)
  const [admin] = (await run(['keys', 'list', '--json'])).json<{ items: { id: string }[] }>().items
  expect((await run(['keys', 'revoke', admin?.id ?? ''])).err).toContain('is the last one with the scope "admin"')
  expect((await run(['keys', 'create', 'x', '-s', 'root'])).code).toBe(2)

  expect((await run(['migrate', 'status', '--json'])).json()).toMatchObject({ pending: [], unknown: [] })
  expect((await run(['migrate', 'up'])).out).toBe('The schema is up to date\n')

  const bare = await run(['db', 'url'])
  expect(bare.out).toMatch(/^postgresql:\/\/longshore@\/longshore\?host=%2F.*&port=5432\n$/)
  const { out: full } = await run(['db', 'url', '--password'])
  const client = new (await import('pg')).default.Client({ connectionString: full.trim().replace('@/', '@localhost/') })
  await client.connect()
  expect((await client.query('select count(*)::int as n from queues')).rows[0].n).toBeGreaterThan(0)
  await client.end()
  expect((await run(['health'], { PORT: new URL(url).port })).out).toBe('ready\n')
}, 60_000)

test('keys and migrate start the embedded database of a node that rests, and stop it again', async () => {
  await using resting = await nodeFolder()
  const there = (args: string[]) => longshore(args, { cwd: resting.path })
  expect((await there(['keys', 'list'])).err).toContain('There is no database yet')
  expect((await there(['migrate', 'up'])).out).toStartWith('Applied 0001-tasks')
  const [one, other] = await Promise.all([there(['keys', 'create', 'me', '-s', 'admin']), there(['migrate', 'status'])])
  expect([one?.code, other?.code]).toEqual([0, 0])
  expect(await there(['db', 'url'])).toMatchObject({ code: 3, out: '' })
}, 60_000)

test('db url leaves the password of DATABASE_URL out unless it is asked for', async () => {
  const DATABASE_URL = 'postgres://me:p%40ss@db.example.com:5433/work?sslmode=require&password=p'
  expect((await run(['db', 'url'], { DATABASE_URL })).out).toBe(
    'postgres://me@db.example.com:5433/work?sslmode=require\n',
  )
  expect((await run(['db', 'url', '--password'], { DATABASE_URL })).out).toBe(`${DATABASE_URL}\n`)
})

test('handlers check loads each file in a thread and names what is wrong', async () => {
  const dir = join(folder.path, 'bad-handlers')
  mkdirSync(dir)
  const files = {
    'fine.ts': 'export default async (payload: unknown) => payload',
    'exits.mjs': 'process.exit(3)',
    'nothing.js': 'export default 5',
    'throws.ts': 'throw new Error("no config"); export default () => 1',
    'syntax.ts': 'export default (',
    'my handler.ts': 'export default () => 1',
    'fine.js': 'export default () => 1',
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(join(dir, name), text)
  const ran = await run(['handlers', 'check', '--dir', dir, '--json'])
  expect(ran.code).toBe(1)
  const found = new Map(
    ran.json<{ handlers: { file: string; problem?: string }[] }>().handlers.map((one) => [one.file, one.problem]),
  )
  expect(found.get('fine.ts')).toBeUndefined()
  expect(found.get('exits.mjs')).toContain('ended its thread')
  expect(found.get('nothing.js')).toContain('no function as its default export')
  expect(found.get('throws.ts')).toContain('no config (throws.ts:1:')
  expect(found.get('syntax.ts')).toContain('Unexpected end of file')
  expect(found.get('my handler.ts')).toContain('cannot be a handler')
  expect(found.get('fine.js')).toContain('hidden by fine.ts')
  for (const name of Object.keys(files).filter((name) => name !== 'fine.ts')) rmSync(join(dir, name))
  expect(await run(['handlers', 'check', '--dir', dir])).toMatchObject({ code: 0, out: 'ok     fine.ts\n' })
}, 30_000)

test('bench submit reports rates and leaves nothing behind', async () => {
  for (const batch of ['1', '100']) {
    const ran = await run(['bench', 'submit', '--count', '300', '--batch', batch, '--json'])
    expect(ran).toMatchObject({ code: 0, err: '' })
    expect(ran.json<{ finishedPerSecond: number }>().finishedPerSecond).toBeGreaterThan(10)
  }
  const queues = await run(['queue', 'list', '--json'])
  expect(queues.out).not.toContain('bench-')
}, 30_000)

test('demo runs bounded, accounts for every task, and removes its folder', async () => {
  const tmp = join(folder.path, 'tmp')
  mkdirSync(tmp)
  chmodSync(tmp, 0o755)
  // A database of the user's must not be touched: this one cannot even be reached.
  const env = { TMPDIR: tmp, DATABASE_URL: 'postgres://nobody@127.0.0.1:1/none' }
  const ran = await run(['demo', '--seconds', '3', '--json'], env)
  expect(ran).toMatchObject({ code: 0, err: '' })
  expect(ran.json<{ accepted: number; unaccounted: number }>()).toMatchObject({ unaccounted: 0 })
  expect(ran.json<{ succeeded: number }>().succeeded).toBeGreaterThan(10)

  const stopped = await longshore(['demo'], {
    cwd: folder.path,
    env,
    onStart: (child) => {
      let shown = ''
      child.stdout?.on('data', (text) => {
        const before = shown.includes('Failing tasks')
        shown += text
        if (!before && shown.includes('Failing tasks')) child.kill('SIGINT')
      })
    },
  })
  expect(stopped).toMatchObject({ code: 0, err: '' })
  expect(stopped.out).toContain('0 unaccounted for')
  expect((await Array.fromAsync(new Bun.Glob('*').scan({ cwd: tmp, onlyFiles: false }))).length).toBe(0)
}, 120_000)

describe('the exit code', () => {
  test('is 2 for what cannot be understood, with a suggestion', async () => {
    expect(await run(['taks'])).toMatchObject({ code: 2, err: expect.stringContaining('Did you mean task?') })
    expect(await run(['task', 'list', '--qeue', 'x'])).toMatchObject({
      code: 2,
      err: expect.stringContaining('--queue?'),
    })
    expect((await run([])).code).toBe(2)
    expect((await run(['task', 'submit', '--payload', '{n:1}'])).code).toBe(2)
    expect((await run(['task', 'list'], { PORT: 'many' })).code).toBe(2)
    expect((await run(['task', 'list'], { LONGSHORE_URL: 'https://longshore.example.com' })).err).toContain(
      'set LONGSHORE_KEY',
    )
  })

  test('is 3 when nobody answers, or somebody who is not Longshore', async () => {
    expect(await run(['task', 'list', '--url', 'http://127.0.0.1:1'])).toMatchObject({ code: 3 })
    expect(await run(['task', 'list', '--url', sink.url('/')])).toMatchObject({ code: 3 })
    const DATABASE_URL = 'postgres://me:secret-word@127.0.0.1:1/none'
    const ran = await run(['migrate', 'status'], { DATABASE_URL })
    expect(ran.code).toBe(3)
    expect(ran.err).toContain('is DATABASE_URL right?')
    expect(ran.err).not.toContain('secret-word')
  })

  test('is 1 for a key that is not known, and 0 for help and version', async () => {
    const denied = await run(['task', 'list'], { LONGSHORE_KEY: 'ls_unknown_key' })
    expect(denied).toMatchObject({ code: 1, err: expect.stringContaining('does not know this key') })
    expect((await run(['--version'])).out).toMatch(/^\d+\.\d+\.\d+/)
    expect(await run(['task', 'submit', '--help'])).toMatchObject({ code: 0, err: '' })
  })
})

test('what a task says cannot steer the terminal', async () => {
  writeFileSync(
    join(folder.path, 'handlers', 'rude.mjs'),
    `export default () => { throw new Error('\\u001b[2Jgone') }\n`,
  )
  const { out } = await run(['task', 'submit', '--handler', 'rude', '--max-attempts', '1', '-w', '--json'])
  const shown = await run(['task', 'get', (JSON.parse(out) as { id: string }).id])
  expect(shown.out).toContain('[2Jgone')
  expect(shown.out).not.toContain('\u001b[2J')
})
