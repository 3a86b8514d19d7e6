/*
 * Writes tasks to a CSV file until it is killed: tests/targets/csv-faults.test.ts starts it. A line on its standard input is
 * a task, one on its output the id of a task that succeeded.
 */
import { createInterface } from 'node:readline'
import { createCsvTarget } from '../../src/targets/csv/target.ts'
import type { Execution } from '../../src/task/executor.ts'
import { targetContext } from '../support/target-context.ts'
import { askOf, namesLedger } from './csv-under-test.ts'

const [outDir = ''] = process.argv.slice(2)
const run = createCsvTarget({ outDir, ask: askOf(namesLedger(), 'here') })

createInterface(process.stdin).on('line', (line) => {
  const execution = JSON.parse(line) as Execution
  void run(execution, targetContext()).then((outcome) => {
    if (outcome.kind !== 'succeeded') throw new Error(JSON.stringify(outcome))
    process.stdout.write(`${execution.id}\n`)
  })
})
