import { describe, expect, test } from 'bun:test'
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { renderEnvExample } from '../scripts/write-env-example.ts'
import { ConfigError, loadConfig, type Mistake } from '../src/config.ts'
import { parseDotenv } from '../src/runtime/dotenv.ts'

const KEY = 'an-admin-key-of-some-length'

function mistakesOf(env: Record<string, string>, dotenv?: string): readonly Mistake[] {
  try {
    loadConfig(env, dotenv)
  } catch (error) {
    if (error instanceof ConfigError) return error.mistakes
    throw error
  }
  return []
}
const messageOf = (env: Record<string, string>) => mistakesOf(env).map(({ message }) => message)[0]

describe('loadConfig', () => {
  test('needs nothing: every setting has a default', () => {
    expect(loadConfig({})).toEqual({
      databaseUrl: undefined,
      amqpUrl: undefined,
      amqpCaFile: undefined,
      rabbitmqManagementUrl: undefined,
      tableDatabaseUrl: undefined,
      compatRoutes: true,
      compatAuth: 'key',
      processOrderUrl: undefined,
      processOrderSecret: undefined,
      dataDir: resolve('data'),
      host: '127.0.0.1',
      port: 8080,
      roles: ['api', 'dispatcher', 'scheduler', 'worker'],
      workerThreads: availableParallelism(),
      adminKey: undefined,
      secretKeys: undefined,
      registryUrl: undefined,
      registryCron: '* * * * *',
      spoolLimit: 20_000_000_000,
      handlersDir: resolve('handlers'),
      logLevel: 'info',
      shutdownTimeoutMs: 25_000,
      migrate: true,
      tracing: undefined,
      apiUrl: undefined,
      apiKey: undefined,
      egress: { allow: [], allowPrivate: true },
      portIsGiven: false,
      workerQueues: undefined,
    })
  })

  test('reads every setting', () => {
    const config = loadConfig({
      DATABASE_URL: 'postgres://me:pw@db:5432/longshore',
      DATA_DIR: '/var/lib/longshore',
      HOST: '::1',
      PORT: '0',
      LONGSHORE_ROLES: 'worker, api,worker',
      WORKER_THREADS: '3',
      LONGSHORE_ADMIN_KEY: KEY,
      HANDLERS_DIR: '/srv/handlers',
      LOG_LEVEL: 'debug',
      SHUTDOWN_TIMEOUT: '2m',
      TARGET_ALLOW: 'api.example.com, 10.0.0.0/8,LOCALHOST',
      MIGRATE: 'off',
    })
    expect(config).toMatchObject({
      dataDir: '/var/lib/longshore',
      host: '::1',
      port: 0,
      roles: ['api', 'worker'],
      workerThreads: 3,
      handlersDir: '/srv/handlers',
      logLevel: 'debug',
      shutdownTimeoutMs: 120_000,
      migrate: false,
      egress: { allow: ['api.example.com', '10.0.0.0/8', 'localhost'], allowPrivate: false },
    })
    expect(config.databaseUrl?.reveal()).toBe('postgres://me:pw@db:5432/longshore')
    expect(config.adminKey?.reveal()).toBe(KEY)
  })

  test('prefers a flag to the environment, the environment to .env, .env to the default', () => {
    const dotenv = 'PORT=1\nHOST=a.example\nLOG_LEVEL=warn\n'
    const config = loadConfig({ PORT: '2', HOST: 'b.example' }, dotenv, { PORT: '3', HOST: undefined })
    expect([config.port, config.host, config.logLevel, config.migrate]).toEqual([3, 'b.example', 'warn', true])
  })

  test('takes an empty value as not given', () => {
    expect(loadConfig({ PORT: '', DATABASE_URL: '' }, 'PORT=81')).toMatchObject({ port: 81, databaseUrl: undefined })
  })

  test('opens private addresses to targets only while HOST is loopback and TARGET_ALLOW is not set', () => {
    const openness = (env: Record<string, string>) => loadConfig(env).egress.allowPrivate
    for (const HOST of ['127.0.0.1', '127.1.2.3', '::1', '0:0:0:0:0:0:0:1', 'localhost', 'LocalHost']) {
      expect(openness({ HOST })).toBe(true)
    }
    for (const HOST of ['0.0.0.0', '::', '10.0.0.1', '127.example']) expect(openness({ HOST })).toBe(false)
    expect(openness({ TARGET_ALLOW: '' })).toBe(false)
  })

  test('takes COMPAT_AUTH=none only while HOST is loopback', () => {
    expect(loadConfig({ COMPAT_AUTH: 'none' })).toMatchObject({ compatAuth: 'none' })
    expect(messageOf({ COMPAT_AUTH: 'none', HOST: '0.0.0.0' })).toContain('only while HOST is loopback')
  })

  test('is frozen, its lists too', () => {
    const config = loadConfig({ TARGET_ALLOW: 'a.example' })
    for (const part of [config, config.roles, config.egress, config.egress.allow])
      expect(Object.isFrozen(part)).toBe(true)
  })

  test('reports every mistake at once, with the name, what was given and what is allowed', () => {
    const mistakes = mistakesOf(
      { PORT: '80a', WORKER_THREADS: '0', LOG_LEVEL: 'loud', LONGSHORE_PORT: '1', AMQP_URL: 'http://x' },
      'MIGRATE=maybe\nwhat is this\n',
    )
    expect(mistakes.map(({ name }) => name).sort()).toEqual(
      ['.env', 'AMQP_URL', 'LOG_LEVEL', 'LONGSHORE_PORT', 'MIGRATE', 'PORT', 'WORKER_THREADS'].sort(),
    )
    const { message } = new ConfigError(mistakes)
    expect(message).toContain('- PORT must be a whole number from 0 to 65535 (given: "80a")')
    expect(message).toContain('- MIGRATE must be on or off (given: "maybe")')
    expect(message).toContain('- .env, line 2: cannot be read')
  })

  test.each([
    ['DATABASE_URL', ['mysql://db/x', 'db:5432', 'postgres']],
    ['AMQP_URL', ['http://x', 'rabbit:5672', 'amqp://h1/a,amqp://h2/b', 'amqp://h1,amqp://h2/b', 'amqp://h1/%zz']],
    ['HOST', ['http://localhost', 'localhost:80', 'a b', '-x']],
    ['PORT', ['-1', '65536', '1.5', '0x50', '1e3']],
    ['LONGSHORE_ROLES', [',', 'api,boss', 'API']],
    ['WORKER_THREADS', ['0', '257', 'many']],
    ['LONGSHORE_ADMIN_KEY', ['short', `${KEY} with spaces`, 'é'.repeat(30)]],
    ['LOG_LEVEL', ['verbose', 'INFO']],
    ['SHUTDOWN_TIMEOUT', ['25', '2 m', '61m', '-1s']],
    ['TARGET_ALLOW', ['0x7f.1', '10.0.0.0/33', 'http://x', 'a:80']],
    ['MIGRATE', ['no', 'constructor', 'OFF']],
  ])('refuses what %s cannot be', (name, texts) => {
    for (const text of texts) {
      expect([text, mistakesOf({ [name]: text }).map((mistake) => mistake.name)]).toEqual([text, [name]])
    }
  })

  test('takes several URLs of one vhost, however it is written', () => {
    const text = 'amqp://h1, amqps://me:hunter2@h2/%2F'
    expect(loadConfig({ AMQP_URL: text }).amqpUrl?.reveal()).toBe(text)
  })

  test('never shows a secret, in a message or when the config is printed', () => {
    expect(messageOf({ DATABASE_URL: 'mysql://me:hunter2@db/x' })).not.toContain('hunter2')
    expect(messageOf({ LONGSHORE_ADMIN_KEY: 'hunter2' })).not.toContain('hunter2')
    const config = loadConfig({ DATABASE_URL: 'postgres://me:hunter2@db/x', LONGSHORE_ADMIN_KEY: `hunter2${KEY}` })
    expect(`${JSON.stringify(config)}${Bun.inspect(config)}${config.databaseUrl}`).not.toContain('hunter2')
  })

  test('says what an unknown LONGSHORE_ variable was probably meant to be', () => {
    expect(messageOf({ LONGSHORE_ROLE: 'api' })).toBe('LONGSHORE_ROLE is unknown; did you mean LONGSHORE_ROLES?')
    expect(messageOf({ LONGSHORE_FLUX_CAPACITOR: '1' })).toBe('LONGSHORE_FLUX_CAPACITOR is unknown')
  })

  test('takes several secret keys, and shows none of them when one is wrong', () => {
    const keys = ['a'.repeat(64), Buffer.alloc(32, 7).toString('base64')]
    expect(loadConfig({ LONGSHORE_SECRET_KEY: keys.join(', ') }).secretKeys?.reveal()).toBe(keys.join(', '))
    const message = messageOf({ LONGSHORE_SECRET_KEY: `${keys[0]},hunter2` })
    expect(message).toContain('LONGSHORE_SECRET_KEY must be one or more keys of 32 bytes')
    expect(message).not.toContain('hunter2')
  })

  test('reads where the registry of FTP connections is, under its old name, too', () => {
    const config = loadConfig({ DJANGO_HOST: 'http://me:hunter2@django:8000' })
    expect(config.registryUrl?.reveal()).toBe('http://me:hunter2@django:8000')
    expect(config.registryCron).toBe('* * * * *')
    expect(messageOf({ FTP_REGISTRY_URL: 'django' })).toContain('FTP_REGISTRY_URL must be an http or https URL')
    expect(messageOf({ FTP_REGISTRY_CRON: 'often' })).toContain('FTP_REGISTRY_CRON must be a cron expression')
  })

  test('reads how large the spool may be', () => {
    expect(loadConfig({ SPOOL_LIMIT: '500MB' }).spoolLimit).toBe(500_000_000)
    for (const wrong of ['0GB', '1.5GB', '20', '20gb', '9999999GB']) {
      expect(messageOf({ SPOOL_LIMIT: wrong })).toContain('SPOOL_LIMIT must be a size such as 500MB or 20GB')
    }
  })

  test('leaves variables of others alone', () => {
    expect(mistakesOf({ PATH: '/bin', PORT_X: 'y', HOSTNAME: 'box' }, 'COMPOSE_PROJECT=x')).toEqual([])
  })
})

describe('parseDotenv', () => {
  test('reads names, quotes, comments and either line ending', () => {
    const text = [
      '\uFEFF# a comment',
      'A=1',
      'export B = two words   # comment',
      'C="a # b\\n\\"c\\" \\\\"  # comment',
      "D='raw \\n $HOME'",
      'E=',
      'F=a#b=c',
      'G=#nothing',
      'A=2',
    ].join('\r\n')
    expect(parseDotenv(text)).toEqual({
      variables: { A: '2', B: 'two words', C: 'a # b\n"c" \\', D: 'raw \\n $HOME', E: '', F: 'a#b=c', G: '' },
      unreadable: [],
    })
  })

  test('names the lines that it cannot read', () => {
    expect(parseDotenv('A=1\nB: 2\n\nC="open\n1D=x\nE="a" b').unreadable).toEqual([2, 4, 5, 6])
  })
})

test('.env.example shows every setting (else run `bun scripts/write-env-example.ts`)', async () => {
  expect(await Bun.file(new URL('../.env.example', import.meta.url)).text()).toBe(renderEnvExample())
})
