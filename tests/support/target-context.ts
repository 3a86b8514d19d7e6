import type { TargetContext } from '../../src/task/attempt/attempt.ts'
import type { Ask } from '../../src/task/attempt/question.ts'

/** What a target is given, by a test that runs it without an executor. */
export function targetContext(over: Partial<TargetContext> = {}): TargetContext {
  return { signal: new AbortController().signal, log: () => {}, progress: () => {}, ask: nobodyAnswers, ...over }
}

/** For targets that ask nothing. */
export const nobodyAnswers: Ask = ({ kind }) => Promise.reject(new Error(`Nobody answers "${kind}" here`))
