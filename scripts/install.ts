/**
 * Brings node_modules to the frozen lockfile when it is not there yet: `production` packages before a start, `all` before
 * tests. Never prunes: a tree that holds development packages keeps them. Runs before anything is installed: no imports
 * but the runtime's.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'

const root = resolve(import.meta.dir, '..')
/** What the last complete install was made from: the lockfile's digest, then which packages. */
const marker = join(root, 'node_modules', '.longshore-install')
const [wanted = 'production'] = process.argv.slice(2)
const digest = createHash('sha256')
  .update(readFileSync(join(root, 'bun.lock')))
  .digest('hex')
const [installedDigest, installed] = existsSync(marker) ? readFileSync(marker, 'utf8').split(' ') : []

const inSync = installedDigest === digest && (installed === 'all' || installed === wanted)
if (!inSync) {
  // A package that no production package brings along.
  const isDevelopersTree = installed === 'all' || existsSync(join(root, 'node_modules', 'fast-check'))
  const packages = wanted === 'all' || isDevelopersTree ? 'all' : 'production'
  const flags = packages === 'production' ? ['--production'] : []
  const { exitCode } = Bun.spawnSync([process.execPath, 'install', '--frozen-lockfile', ...flags], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
  })
  if (exitCode !== 0) process.exit(exitCode)
  writeFileSync(marker, `${digest} ${packages}`)
}
