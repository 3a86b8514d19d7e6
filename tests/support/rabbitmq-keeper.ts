import { rm } from 'node:fs/promises'
import { processIdentity } from '../../src/store/postgres/process-identity.ts'
import { processesIn } from './node-process.ts'

// usage: bun rabbitmq-keeper.ts <folder> <pid>
// Ends the RabbitMQ in <folder> and removes both when the process <pid>, for which it runs, is gone.
const [folder, owner] = process.argv.slice(2)
if (!folder || !owner) throw new Error('usage: rabbitmq-keeper.ts <folder> <pid>')

const pause = () => new Promise((resolve) => setTimeout(resolve, 200))
const others = () => processesIn(folder).filter((pid) => pid !== process.pid)

const alive = processIdentity(Number(owner))
while (alive !== undefined && processIdentity(Number(owner)) === alive) await pause()
while (others().length > 0) {
  for (const pid of others()) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {
      // It ended meanwhile.
    }
  }
  await pause()
}
await rm(folder, { recursive: true, force: true })
