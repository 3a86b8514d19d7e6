import { open, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { takeOwnerLock } from '../../../src/store/postgres/owner-lock.ts'
import { EmbeddedPostgresRefusal } from '../../../src/store/postgres/refusal.ts'

// usage: bun lock-racer.ts <folder> <release|die> <turns>
// Takes the folder's lock <turns> times (once when it dies holding it); exits with 3 when another one held it meanwhile.
const [folder, end, turns] = process.argv.slice(2)
const inside = join(folder as string, 'inside')
for (let turn = 0; turn < Number(turns); ) {
  try {
    const lock = await takeOwnerLock(folder as string)
    const mark = await open(inside, 'wx').catch(() => process.exit(3))
    await mark.close()
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
    await rm(inside)
    if (end === 'die') process.kill(process.pid, 'SIGKILL')
    await lock.release()
    turn++
  } catch (error) {
    if (!(error instanceof EmbeddedPostgresRefusal)) throw error
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 4))
  }
}
