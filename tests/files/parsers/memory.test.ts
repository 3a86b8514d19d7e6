import { describe, expect, test } from 'bun:test'
import { join } from 'node:path'

/** Records and peak memory in MB of a process of its own. */
async function reading(kind: string, megabytes: number): Promise<{ records: number; peak: number }> {
  const script = join(import.meta.dir, 'peak-memory.ts')
  const child = Bun.spawn([process.execPath, script, kind, String(megabytes)], { stderr: 'inherit' })
  return JSON.parse(await new Response(child.stdout).text())
}

describe('reading a file', () => {
  test.each(['csv', 'json', 'lines', 'xml'])(
    'of %s takes as much memory for ten times the rows',
    async (kind) => {
      const small = await reading(kind, 10)
      const large = await reading(kind, 100)
      expect(large.records).toBeGreaterThan(9 * small.records)
      // Where the collector gets no turn, a peak says little: once more then.
      const peak = large.peak < small.peak + 30 ? large.peak : (await reading(kind, 100)).peak
      expect(peak).toBeLessThan(small.peak + 30)
      expect(peak).toBeLessThan(200)
    },
    120_000,
  )
})
