/**
 * Runs the tests, or those under the paths that are given, on every engine, and closes with `N passed, N failed` from the
 * JUnit report. Not here: tests/bench (`bun run bench`) and the architecture test (`bun run check:static`).
 * Without a Postgres server or a RabbitMQ that engine is left out, and said so; in CI that, and every other skip, is a failure.
 */
import { rmSync } from 'node:fs'
import { brokerEngine } from './broker-engine.ts'
import { serverEngine } from './server-engine.ts'
import { readTestReport } from './test-report.ts'

const REPORT = 'junit.xml'
const isCi = Boolean(process.env.CI) && process.env.CI !== 'false'

const given = process.argv.slice(2)
const server = await serverEngine()
const broker = await brokerEngine()
const engines: Record<string, string> = {
  ...(server.url === undefined ? { TEST_ENGINES: 'embedded' } : { TEST_SERVER_URL: server.url }),
  ...('reason' in broker ? { TEST_BROKERS: 'in-process' } : broker.env),
}
rmSync(REPORT, { force: true })
const runner = Bun.spawn(
  [
    // As many processes as cores: most tests wait for something most of the time.
    ...[process.execPath, 'test', '--isolate', '--parallel', '--timeout=60000'],
    ...['--reporter=junit', `--reporter-outfile=${REPORT}`],
    ...['--path-ignore-patterns=tests/bench/**', '--path-ignore-patterns=tests/architecture.test.ts'],
    ...(given.length > 0 ? given : ['tests/']),
  ],
  { stdio: ['inherit', 'inherit', 'inherit'], env: { ...process.env, ...engines } },
)
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => runner.kill(signal))
const exitCode = await runner.exited
if ('end' in broker) await broker.end()

const report = readTestReport(
  await Bun.file(REPORT)
    .text()
    .catch(() => ''),
)
const complaints: string[] = []
if (report.passed + report.failed === 0) complaints.push('No test ran')
// A file that fails to load is not in the report, only in the exit code.
else if (exitCode !== 0 && report.failed === 0) complaints.push(`The runner ended with code ${exitCode}`)
if (server.url === undefined && process.env.TEST_SERVER_URL) complaints.push('TEST_SERVER_URL is set and leads nowhere')
if (server.url === undefined) console.log(`\nSkipped: the engine "server": ${server.reason}`)
if ('reason' in broker) console.log(`\nSkipped: the broker "rabbitmq": ${broker.reason}`)
if (report.skipped.length > 0) console.log(`\nSkipped:\n${report.skipped.map((name) => `- ${name}`).join('\n')}`)
if (isCi && (server.url === undefined || 'reason' in broker || report.skipped.length > 0))
  complaints.push('Nothing may be skipped in CI')
for (const complaint of complaints) console.log(`\nFailed: ${complaint}`)
console.log(`\n${report.passed} passed, ${report.failed + complaints.length} failed`)
process.exitCode = report.failed + complaints.length > 0 ? 1 : 0
