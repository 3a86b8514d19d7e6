/*
 * A worker thread: runs targets and holds nothing else, no ledger and no broker connection. It may hang, throw or exit;
 * the pool (src/execution/threads/pool.ts) notices and settles. Its imports are kept few: each thread pays for them.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { realClock } from './runtime/clock.ts'
import { createRunTarget } from './targets/run.ts'
import { type Answers, OpenQuestions, type Question } from './task/attempt/question.ts'
import { createAttemptRunner } from './task/attempt/runner.ts'
import {
  CELL,
  type FromThread,
  type HandlerCheck,
  type ThreadData,
  type ToThread,
} from './task/attempt/thread-messages.ts'

const TURN_MS = 100
/** The ordinal of no run. */
const THREAD_ITSELF = 0

const nothing = (): FromThread => ({ reports: [], ends: [], questions: [] })

function serve(port: NonNullable<typeof parentPort>, { settings, cells: buffer }: ThreadData): void {
  const cells = new Int32Array(buffer)
  const open = new OpenQuestions()
  let batch = nothing()
  let flushing = false
  let turning = false

  function flush(): void {
    flushing = false
    const { reports, ends, questions } = batch
    if (reports.length + ends.length + questions.length === 0) return
    batch = nothing()
    port.postMessage(JSON.stringify({ reports, ends, questions } satisfies FromThread))
  }

  function ask<Q extends Question>(ordinal: number, question: Q): Promise<Answers[Q['kind']]> {
    const { number, answered } = open.ask<Q>()
    batch.questions.push([ordinal, number, question])
    flushSoon()
    return answered
  }

  /** All that ends in one turn of the event loop goes in one message. */
  function flushSoon(): void {
    if (flushing) return
    flushing = true
    setImmediate(flush)
  }

  function turn(): void {
    Atomics.add(cells, CELL.turns, 1)
    turning = runner.running() > 0
    if (turning) setTimeout(turn, TURN_MS)
  }

  const runner = createAttemptRunner({
    runTarget: createRunTarget(settings, (question) => ask(THREAD_ITSELF, question)),
    clock: realClock,
    ask,
    onReport(reports) {
      batch.reports.push(...reports)
      flushSoon()
    },
    around(ordinal, userCode) {
      Atomics.store(cells, CELL.holder, ordinal)
      try {
        return userCode()
      } finally {
        Atomics.store(cells, CELL.holder, 0)
      }
    },
  })

  port.on('message', (text: string) => {
    const { runs, cancels, replies } = JSON.parse(text) as ToThread
    for (const [ordinal, execution] of runs) {
      // Before the target runs: when it never gives the event loop back, the pool still knows that it was started.
      Atomics.store(cells, CELL.started, ordinal)
      runner.start(ordinal, execution, (outcome) => {
        batch.ends.push([ordinal, outcome])
        flushSoon()
      })
    }
    for (const [number, reply] of replies) open.reply(number, reply)
    for (const ordinal of cancels) runner.cancel(ordinal)
    if (!turning) turn()
  })

  // When a handler calls process.exit or the thread crashes: what has ended in this turn, and the last words, are still told.
  process.on('exit', () => {
    runner.report()
    flush()
  })
  port.postMessage(JSON.stringify(nothing()))
}

/** For `longshore handlers check`: one answer, a list of files or a finding. */
async function check(port: NonNullable<typeof parentPort>, { handlersDir, handler }: HandlerCheck): Promise<void> {
  const { checkHandler, listHandlerFiles } = await import('./targets/check-handlers.ts')
  port.postMessage(handler === undefined ? listHandlerFiles(handlersDir) : await checkHandler(handlersDir, handler))
}

if (parentPort) {
  const data = workerData as ThreadData | HandlerCheck
  if ('handlersDir' in data) await check(parentPort, data)
  else serve(parentPort, data)
}
