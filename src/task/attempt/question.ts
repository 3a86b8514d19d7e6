import type {
  ImportBatchQuestion,
  ImportFailQuestion,
  ImportOpened,
  ImportOpenQuestion,
  ImportStep,
} from '../source/import.ts'

/*
 * What a target asks of the ledger's side. A target's thread holds no ledger and no broker connection (DESIGN principle
 * 4), so what it wants recorded, or what only one node at a time may do, it sends there and awaits.
 */

/** A message for the broker. */
export interface PublishQuestion {
  kind: 'publish'
  /** '' is the default exchange, which routes to the queue that the routing key names. */
  exchange: string
  routingKey: string
  /** Text; of a task its payload. */
  body: string
  properties?:
    | {
        messageId?: string | undefined
        type?: string | undefined
        contentType?: string | undefined
        priority?: number | undefined
        /** RFC 3339. */
        timestamp?: string | undefined
        headers?: Record<string, string> | undefined
      }
    | undefined
}

/** The closed set of questions. `hold` and `release` are about a name that one thread of one living node has at a time. */
export type Question =
  | { kind: 'hold'; name: string }
  | { kind: 'release'; name: string }
  | PublishQuestion
  | ImportOpenQuestion
  | ImportBatchQuestion
  | ImportFailQuestion

/** The answer to each kind of question. */
export interface Answers {
  /** `unknown`: it may have arrived or not. `unroutable`: no queue took it. `refused`: the broker's user may not publish there. */
  publish: 'confirmed' | 'unroutable' | 'refused' | 'unknown'
  hold: Hold
  release: null
  'import-open': ImportOpened
  'import-batch': ImportStep
  'import-fail': null
}

/**
 * Whether the name is the asker's now. The same `token` as before means that nobody else had it in between; another one,
 * that somebody may have. Held means that this node cannot be declared dead within the next `HOLD_MS`.
 */
export type Hold = { held: true; token: string } | { held: false }

/** A held name may be relied on for so long, counted from before it was asked for. */
export const HOLD_MS = 5_000

/** Rejects with a sentence when there is no answer: the ledger's side is away, or the attempt was aborted. */
export type Ask = <Q extends Question>(question: Q) => Promise<Answers[Q['kind']]>

/** The attempt that asks; null: the thread itself, for what outlives an attempt. */
export type Asker = { id: string; attempt: number } | null

/** What comes back for one question. */
export type Reply = { answer: Answers[Question['kind']] } | { error: string }

/** Questions on their way, by number: each number gets one reply. */
export class OpenQuestions {
  readonly #open = new Map<number, (reply: Reply) => void>()
  #last = 0

  /** Gives the question's number; the promise settles by its reply. */
  ask<Q extends Question>(): { number: number; answered: Promise<Answers[Q['kind']]> } {
    this.#last++
    const number = this.#last
    const answered = new Promise<Answers[Q['kind']]>((resolve, reject) => {
      this.#open.set(number, (reply) => {
        if ('error' in reply) reject(new Error(reply.error))
        else resolve(reply.answer as Answers[Q['kind']])
      })
    })
    return { number, answered }
  }

  reply(number: number, reply: Reply): void {
    const settle = this.#open.get(number)
    this.#open.delete(number)
    settle?.(reply)
  }
}
