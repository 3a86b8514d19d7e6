/*
 * `bun run bench`: what Longshore does on this machine, default settings, fsync on, consumers made over HTTP.
 * The node is a process of its own; this process is its client, its HTTP sink and its watch. Writes bench-result.json.
 * `--part embedded,rabbitmq,files` takes some parts only; `--waiting 100000` takes fewer than a million for the last measure of
 * the part `embedded`; `--deno` runs that part's node on Deno; `--rows 200000` takes fewer than a million for the part `files`,
 * which needs the file servers of scripts/test-servers.ts.
 */
import { parseArgs } from 'node:util'
import { benchEmbedded } from './embedded.ts'
import { benchFiles } from './files.ts'
import { benchRabbitMq } from './rabbitmq.ts'
import { createReport } from './report.ts'

const { values: flags } = parseArgs({
  options: {
    part: { type: 'string', default: 'embedded,rabbitmq,files' },
    waiting: { type: 'string', default: '1000000' },
    rows: { type: 'string', default: '1000000' },
    deno: { type: 'boolean', default: false },
  },
})
const report = createReport()
const parts: Record<string, () => Promise<void>> = {
  embedded: () => benchEmbedded(report.note, flags.deno ? 'deno' : 'bun', Number(flags.waiting)),
  rabbitmq: () => benchRabbitMq(report.note),
  files: () => benchFiles(report.note, Number(flags.rows)),
}
for (const name of flags.part.split(',')) {
  const run = parts[name]
  if (!run) throw new Error(`There is no part "${name}": known are ${Object.keys(parts).join(', ')}`)
  report.part(name)
  await run()
}
await report.write()
