import { run } from './cli/run.ts'
import { openAssets } from './runtime/assets.ts'

// Made here, beside thread.ts: a compiled binary finds its files by no other way.
const threadUrl = new URL('./thread.ts', import.meta.url)
const assets = openAssets(new URL('./assets/', import.meta.url))

// What a node needs is loaded by the commands that start one: --help and --version answer at once.
await run(process.argv.slice(2), {
  threadUrl,
  packedPostgres: assets?.postgres,
  async load(overrides) {
    const { loadProcessConfig } = await import('./config.ts')
    const settings = loadProcessConfig(overrides)
    return {
      settings,
      async start(log, signal) {
        const { startApp } = await import('./app.ts')
        return startApp(settings, log, threadUrl, assets, signal)
      },
      async startWorker(place, log, signal) {
        const { startRemoteWorker } = await import('./app/worker.ts')
        return startRemoteWorker(settings, place, log, threadUrl, signal)
      },
    }
  },
})
