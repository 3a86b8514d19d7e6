import type { Message, PublishEnd } from '../broker/broker.ts'
import type { Clock } from '../runtime/clock.ts'
import { messageOf } from '../runtime/errors.ts'
import type { Logger } from '../runtime/log.ts'
import type { Answers, Asker, Hold, PublishQuestion, Question } from '../task/attempt/question.ts'
import type { Ledger } from '../task/ledger.ts'
import type { ImportLedger } from '../task/source/import.ts'

export interface AnswersDeps {
  ledger: Pick<Ledger, 'hold' | 'release'>
  clock: Clock
  log: Logger
  node(): string
  /** True: this node's last beat is young enough that nobody can declare it dead within `HOLD_MS`. */
  mayStart(): boolean
  /** Sends one message; never rejects. */
  publish(message: Message): Promise<PublishEnd>
  /** Where imports are written down; without it no file can be imported here. */
  imports?: ImportLedger | undefined
}

/** The ledger's side of what targets ask. */
export interface Answerer {
  /** `holder` is a thread: a name belongs to one of them at a time. Rejects when there is no answer now. */
  answer(holder: number, asker: Asker, question: Question): Promise<Answers[Question['kind']]>
  /** The thread has ended: what it held is let go. */
  gone(holder: number): void
  /** Lets nothing go any more: the node leaves, and its names with it. */
  close(): void
}

interface Holding {
  holder: number
  node: string
  token: string
}

const RELEASE_AGAIN_MS = 1_000

/**
 * Answers questions from the ledger and the broker. A name that another thread of this node has goes over to the one that
 * asks, under a new token: the executor sees to it that the other one no longer works under that name.
 */
export function createAnswers(deps: AnswersDeps): Answerer {
  const { ledger, clock, log } = deps
  const holdings = new Map<string, Holding>()
  /** The last call about a name: those about one name go one after another. */
  const lines = new Map<string, Promise<unknown>>()
  const holders = new Set<number>()
  /** Names that could not be let go: each with what stops its next try. */
  const retries = new Map<string, () => void>()
  let tokens = 0
  let closed = false

  function inLine<T>(name: string, call: () => Promise<T>): Promise<T> {
    const turn = (lines.get(name) ?? Promise.resolve()).then(call)
    const last = turn
      .catch(() => {})
      .finally(() => {
        if (lines.get(name) === last) lines.delete(name)
      })
    lines.set(name, last)
    return turn
  }

  async function hold(holder: number, name: string): Promise<Hold> {
    // Before the name is asked for, as the time that it may be relied on counts from then.
    if (!deps.mayStart()) throw new Error('This node has not beaten for 10 s: it begins nothing until it has')
    const node = deps.node()
    retries.get(name)?.()
    retries.delete(name)
    const held = await ledger.hold(node, name).catch((error: unknown) => {
      // It may be this node's all the same.
      if (!holdings.has(name)) releaseLater(node, name)
      throw error
    })
    if (!held) {
      holdings.delete(name)
      return { held: false }
    }
    const before = holdings.get(name)
    if (before?.holder === holder && before.node === node) return { held: true, token: before.token }
    const token = `${node}/${++tokens}`
    holdings.set(name, { holder, node, token })
    // Its thread may have ended while the ledger was asked.
    if (!holders.has(holder)) void inLine(name, () => letGo(holder, name))
    return { held: true, token }
  }

  async function letGo(holder: number, name: string): Promise<void> {
    const holding = holdings.get(name)
    if (holding?.holder !== holder) return
    holdings.delete(name)
    await release(holding.node, name)
  }

  /** Without another try the name would be this node's until it ends, though nothing here uses it. */
  async function release(node: string, name: string): Promise<void> {
    if (closed || holdings.has(name)) return
    try {
      await ledger.release(node, name)
    } catch (error) {
      log.debug({ event: 'release-failed', name, error: messageOf(error) })
      releaseLater(node, name)
    }
  }

  function releaseLater(node: string, name: string): void {
    if (closed) return
    const again = () => {
      retries.delete(name)
      void inLine(name, () => release(node, name))
    }
    retries.set(name, clock.after(RELEASE_AGAIN_MS, again))
  }

  async function publish({ exchange, routingKey, body, properties = {} }: PublishQuestion) {
    const end = await deps.publish({ exchange, routingKey, body, properties })
    return end === 'returned' ? 'unroutable' : end
  }

  function importing(asker: Asker): { attempt: NonNullable<Asker>; imports: ImportLedger } {
    if (!asker || !deps.imports) throw new Error('Only an attempt can import a file, on a node that has the ledger')
    return { attempt: asker, imports: deps.imports }
  }

  async function importAnswer(asker: Asker, question: Extract<Question, { file: string }>) {
    const { attempt, imports } = importing(asker)
    switch (question.kind) {
      case 'import-open':
        return imports.open(attempt, question.file)
      case 'import-batch':
        return imports.commit(attempt, question)
      case 'import-fail':
        return imports.fail(attempt, question.file, question.error).then(() => null)
      default:
        return question satisfies never
    }
  }

  return {
    answer(holder, asker, question) {
      holders.add(holder)
      switch (question.kind) {
        case 'hold':
          return inLine(question.name, () => hold(holder, question.name))
        case 'release':
          return inLine(question.name, () => letGo(holder, question.name)).then(() => null)
        case 'publish':
          return publish(question)
        case 'import-open':
        case 'import-batch':
        case 'import-fail':
          return importAnswer(asker, question)
        default:
          return question satisfies never
      }
    },
    gone(holder) {
      holders.delete(holder)
      for (const name of holdings.keys()) void inLine(name, () => letGo(holder, name))
    },
    close() {
      closed = true
      for (const stop of retries.values()) stop()
      retries.clear()
    },
  }
}
