import { isRefusedRow } from '../../src/store/database/statement.ts'
import { createStoreLedger } from '../../src/store/ledger.ts'
import { ENGINES } from '../support/database.ts'
import { atOnce, taskLedger } from '../support/tasks.ts'
import { ledgerConformance } from './ledger.conformance.ts'

for (const engine of ENGINES) {
  ledgerConformance(`in the store, ${engine}`, async () => {
    const tasks = await taskLedger(engine)
    return {
      ledger: createStoreLedger(tasks.pool, atOnce),
      tasks,
      join: () => tasks.join(),
      isBadRow: isRefusedRow,
      close: () => tasks.test.drop(),
    }
  })
}
