import { existsSync, readFileSync } from 'node:fs'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createAnswers } from '../../src/execution/answers.ts'
import { realClock } from '../../src/runtime/clock.ts'
import { type CsvTargetSettings, createCsvTarget } from '../../src/targets/csv/target.ts'
import type { RunTarget } from '../../src/task/attempt/attempt.ts'
import type { Ask } from '../../src/task/attempt/question.ts'
import type { Execution } from '../../src/task/executor.ts'
import type { Outcome } from '../../src/task/outcome.ts'
import type { CsvTarget } from '../../src/task/target/target.ts'
import { anExecution, silent } from '../execution/executor.conformance.ts'
import { targetContext } from '../support/target-context.ts'

/** Names that one node has at a time, as the ledger keeps them. */
export function namesLedger() {
  const names = new Map<string, string>()
  return {
    names,
    async hold(node: string, name: string) {
      if ((names.get(name) ?? node) !== node) return false
      names.set(name, node)
      return true
    },
    async release(node: string, name: string) {
      if (names.get(name) === node) names.delete(name)
    },
  }
}

/** How the threads of `node` ask, each by its number. */
export function asksOf(ledger: ReturnType<typeof namesLedger>, node: string): (holder: number) => Ask {
  const answers = createAnswers({
    ledger,
    clock: realClock,
    log: silent,
    node: () => node,
    mayStart: () => true,
    publish: async () => 'confirmed',
  })
  return (holder) => ((question) => answers.answer(holder, null, question)) as Ask
}

/** How the only thread of `node` asks. */
export const askOf = (ledger: ReturnType<typeof namesLedger>, node: string): Ask => asksOf(ledger, node)(1)

export interface CsvUnderTest {
  readonly outDir: string
  readonly ledger: ReturnType<typeof namesLedger>
  /** The target as a node of its own has it; those of one node have one name. */
  node(name: string, over?: Partial<CsvTargetSettings>): RunTarget
  /** An attempt on the node `here`. */
  run(payload: unknown, target?: Partial<CsvTarget>, over?: Partial<Execution>): Promise<Outcome>
  path(file: string): string
  text(file: string): string
  /** Lines without their ends; the last one is whole. */
  lines(file: string): string[]
  files(): Promise<string[]>
  end(): Promise<void>
}

export async function csvUnderTest(over: Partial<CsvTargetSettings> = {}): Promise<CsvUnderTest> {
  const outDir = await mkdtemp(join(tmpdir(), 'longshore-csv-'))
  const ledger = namesLedger()
  const node = (name: string, more: Partial<CsvTargetSettings> = {}) =>
    createCsvTarget({ outDir, ask: askOf(ledger, name), ...over, ...more })
  const here = node('here')
  const path = (file: string) => join(outDir, file)
  const text = (file: string) => (existsSync(path(file)) ? readFileSync(path(file), 'utf8') : '')
  return {
    outDir,
    ledger,
    node,
    run: (payload, target = {}, execution = {}) => here(csvExecution(payload, target, execution), targetContext()),
    path,
    text,
    lines: (file) => text(file).split('\r\n').slice(0, -1),
    files: async () => (await readdir(outDir, { recursive: true })).sort(),
    end: () => rm(outDir, { recursive: true }),
  }
}

/** An attempt to write `payload` (JSON text, or what is written as JSON) to out.csv, or where `target` says. */
export function csvExecution(
  payload: unknown,
  target: Partial<CsvTarget> = {},
  over: Partial<Execution> = {},
): Execution {
  const text = typeof payload === 'string' ? payload : JSON.stringify(payload)
  return anExecution({ payload: text, target: { type: 'csv', path: 'out.csv', ...target }, ...over })
}
