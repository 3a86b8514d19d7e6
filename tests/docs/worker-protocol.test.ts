import { expect, test } from 'bun:test'
import {
  BEATS_ANSWER,
  BEATS_EXAMPLE,
  CLAIMS_ANSWER,
  CLAIMS_EXAMPLE,
  LOCKS_ANSWER,
  LOCKS_EXAMPLE,
  OUTCOMES_ANSWER,
  OUTCOMES_EXAMPLE,
  TOKENS_ANSWER,
  TOKENS_EXAMPLE,
} from '../../src/api/routes/worker-protocol/examples.ts'
import { blocksOf, readPages } from './markdown.ts'

test('docs/worker-protocol.md shows the exchange as the API describes it', () => {
  const blocks = blocksOf(readPages().get('docs/worker-protocol.md') ?? '')
  const shown = blocks.filter(({ info }) => info[0] === 'json').map(({ code }) => JSON.parse(code))
  expect(shown).toEqual([
    ...[BEATS_EXAMPLE, BEATS_ANSWER, CLAIMS_EXAMPLE, CLAIMS_ANSWER, OUTCOMES_EXAMPLE, OUTCOMES_ANSWER],
    ...[TOKENS_EXAMPLE, TOKENS_ANSWER, LOCKS_EXAMPLE, LOCKS_ANSWER],
  ])
})
