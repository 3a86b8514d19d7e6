import { describe, expect, test } from 'bun:test'
import { ENGINES, testDatabase } from '../support/database.ts'
import { unpackPostgresClient } from '../support/postgres-client.ts'
import { HAS_RABBITMQ, testVhost } from '../support/rabbitmq.ts'
import { until } from '../support/until.ts'
import { type Block, blocksOf, readPages } from './markdown.ts'
import { openTerminal } from './terminal.ts'

/*
 * Every shell block of README.md and docs/ runs as it stands, in order, one shell a page, in a fresh clone.
 *
 *   ```sh                runs and must succeed; what it sets is there for the blocks after it
 *   ```sh serves=8080    runs on in a terminal of its own; the page goes on when the port takes connections
 *   ```sh no-run         is left out, when NOT_RUN says why
 *   ```json output       after a block: each field must be in what that block printed; where it looked after a `sleep`, it
 *                        looks again until they are
 *
 * A page that starts no node (serves=8080, or `longshore start` in a block) finds one running. `longshore` is the clone's command line. Ports are exchanged for
 * free ones, and the URL of DATABASE_URL for a fresh database.
 */

/** Blocks that cannot run here: by page, how the block begins, and why. */
const NOT_RUN: Record<string, Record<string, string>> = {
  'README.md': {
    'bun run start   #': 'the two commands beside each other; the tour starts the node, and these are the tests',
  },
  'CONTRIBUTING.md': {
    'bun run start   #': 'as in README.md',
  },
  'docs/files.md': {
    'apt-get install':
      'a server for the whole machine; tests/e2e/files.test.ts does the page on real servers of its own',
    'longshore source test bank': 'needs that server',
    'for file in incoming/*': 'needs that server',
  },
  'docs/move-to-a-server.md': {
    'pg_dump --no-owner': 'only with table targets, of which the page has none',
  },
  'docs/worker-protocol.md': {
    'longshore keys create worker': 'a worker beside a server on RabbitMQ; tests/e2e/worker.test.ts runs it',
  },
}

/** As the docs write the URLs of a Postgres server and of RabbitMQ. */
const DATABASE_URL = 'postgres://longshore:secret@127.0.0.1:5432/longshore'
const AMQP_URL = 'amqp://guest:guest@127.0.0.1:5672'

const isShell = ({ info }: Block) => ['sh', 'bash', 'shell', 'console'].includes(info[0] ?? '')
/** The page starts its own node. */
const startsNode = (block: Block) => served(block) === '8080' || /^(\w+=\S+ )*longshore start\b/m.test(block.code)
const served = ({ info }: Block) => info.find((flag) => flag.startsWith('serves='))?.slice('serves='.length)

for (const [page, text] of readPages()) {
  const blocks = blocksOf(text)
  const shell = blocks.filter(isShell)
  if (shell.length === 0) continue
  const left = shell.filter(({ info }) => info.includes('no-run'))

  test(`${page}: its blocks say in the known way what they are, and a reason stands for each that is not run`, () => {
    const known = (flag: string) => flag === 'no-run' || /^serves=\d+$/.test(flag)
    expect(shell.filter(({ info }) => info[0] !== 'sh' || !info.slice(1).every(known))).toEqual([])
    const reasons = Object.keys(NOT_RUN[page] ?? {})
    expect(left.filter(({ code }) => !reasons.some((begin) => code.startsWith(begin)))).toEqual([])
    expect(reasons.filter((begin) => !left.some(({ code }) => code.startsWith(begin)))).toEqual([])
  })
  if (left.length === shell.length) continue

  const needsServer = text.includes(DATABASE_URL)
  const needsRabbitMq = shell.some(({ code }) => code.includes(AMQP_URL))
  test.if((!needsServer || ENGINES.includes('server')) && (!needsRabbitMq || HAS_RABBITMQ))(
    `${page}: its blocks run as they stand`,
    async () => {
      const database = needsServer ? await testDatabase('server', { poolSize: 1 }) : undefined
      const url = database && 'url' in database.connection ? database.connection.url : undefined
      const vhost = needsRabbitMq ? await testVhost() : undefined
      try {
        await using terminal = await openTerminal({
          replace: { ...(url && { [DATABASE_URL]: url }), ...(vhost && { [AMQP_URL]: vhost.amqpUrl }) },
          ...(/pg_dump|psql/.test(text) ? { programs: unpackPostgresClient } : {}),
        })
        if (!shell.some(startsNode)) await terminal.serve('exec bun run start', '8080')
        await runBlocks(page, blocks, terminal)
      } finally {
        await vhost?.remove()
        await database?.drop()
      }
    },
    240_000,
  )
}

async function runBlocks(page: string, blocks: Block[], terminal: Awaited<ReturnType<typeof openTerminal>>) {
  let output = ''
  let lookAgain: string | undefined
  for (const block of blocks) {
    const at = `${page}:${block.line}`
    const failed = (cause: unknown) => {
      throw new Error(`${at}: ${cause instanceof Error ? cause.message : cause}`, { cause })
    }
    if (block.info[0] === 'json' && block.info.includes('output')) {
      const missing = () => missingFields(JSON.parse(block.code), lastJson(output))
      const isThere = async () => {
        if (lookAgain !== undefined && missing().length > 0) output = await terminal.run(lookAgain)
        return lookAgain === undefined || missing().length === 0
      }
      await until(isThere, { timeoutMs: 30_000 }).catch(() => {})
      if (missing().length > 0) failed(`the command before it printed no ${missing().join(', ')}, but:\n${output}`)
    }
    if (!isShell(block) || block.info.includes('no-run')) continue
    const port = served(block)
    if (port) await terminal.serve(block.code, port).catch(failed)
    else {
      output = await terminal.run(block.code).catch(failed)
      lookAgain = /^sleep \d+; (.+)\n$/m.exec(block.code)?.[1]
    }
  }
}

/** The JSON that a command printed: all of its output, or the last line of it. */
function lastJson(output: string): unknown {
  for (const text of [output.trim(), output.trim().split('\n').at(-1) ?? '']) {
    try {
      return JSON.parse(text)
    } catch {
      // The next one, then.
    }
  }
  return undefined
}

/** Fields of `shown` that `real` has not, or with another kind of value; values themselves differ from run to run. */
function missingFields(shown: unknown, real: unknown, path = ''): string[] {
  if (Array.isArray(shown)) {
    if (!Array.isArray(real) || real.length < shown.length) return [path || 'list']
    return shown.flatMap((item, index) => missingFields(item, real[index], `${path}/${index}`))
  }
  if (typeof shown === 'object' && shown !== null) {
    if (typeof real !== 'object' || real === null || Array.isArray(real)) return [path || 'object']
    return Object.entries(shown).flatMap(([key, value]) =>
      key in real ? missingFields(value, (real as Record<string, unknown>)[key], `${path}/${key}`) : [`${path}/${key}`],
    )
  }
  return shown === null || typeof shown === typeof real ? [] : [path || 'value']
}

describe('the comparison of shown and printed JSON', () => {
  test.each([
    [{ a: 1 }, { a: 2, b: 3 }, []],
    [{ a: { b: 'x' } }, { a: { c: 'x' } }, ['/a/b']],
    [[{ n: 1 }], [{ n: 'one' }], ['/0/n']],
    [{ a: 1 }, undefined, ['object']],
    [{ a: null }, { a: 'set' }, []],
  ])('of %j and %j finds %j', (shown, real, missing) => {
    expect(missingFields(shown, real)).toEqual(missing as string[])
  })
})
