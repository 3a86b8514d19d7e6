import { v7 } from 'uuid'
import { createRemoteLedger } from '../../../src/execution/remote/ledger.ts'
import { isRefusedByLedger } from '../../../src/execution/remote/ledger-connection.ts'
import { realClock } from '../../../src/runtime/clock.ts'
import { serve } from '../../../src/runtime/serve.ts'
import { apiUnderTest } from '../../api/api-under-test.ts'
import { ENGINES } from '../../support/database.ts'
import { silent } from '../../support/services.ts'
import { IDLE, taskLedger } from '../../support/tasks.ts'
import { ledgerConformance } from '../ledger.conformance.ts'

for (const engine of ENGINES) {
  ledgerConformance(`over HTTP, ${engine}`, async () => {
    const tasks = await taskLedger(engine)
    const api = await apiUnderTest(engine, { test: tasks.test })
    const server = serve({ fetch: api.api.fetch, host: '127.0.0.1', port: 0, log: silent })
    const ledger = createRemoteLedger({
      url: server.url,
      key: api.keys.work,
      clock: realClock,
      log: silent,
      onTopology() {},
    })
    return {
      ledger,
      tasks,
      async join() {
        const id = v7()
        await ledger.join({ id, name: 'test', version: '0', state: IDLE })
        return id
      },
      isBadRow: isRefusedByLedger,
      async close() {
        ledger.close()
        await server.stop(0)
        await tasks.test.drop()
      },
    }
  })
}
