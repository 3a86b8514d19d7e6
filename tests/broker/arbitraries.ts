import fc from 'fast-check'
import type { HeaderValue, MessageProperties } from '../../src/broker/broker.ts'

/** What JSON and Postgres find hard, among other text. */
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom('\0', '\\u0000', '\\\\u0000', '\ud800', '\udc00"\\'),
)

/** Header tables of every shape that a client may send, and some that none can. */
export const headerTables = fc.letrec<{ table: Record<string, HeaderValue>; value: HeaderValue }>((tie) => ({
  table: fc.dictionary(text, tie('value'), { maxKeys: 4 }),
  value: fc.oneof(
    { depthSize: 'small' },
    text,
    fc.bigInt() as unknown as fc.Arbitrary<HeaderValue>,
    fc.double(),
    fc.constantFrom(true, null),
    fc.array(tie('value')),
    tie('table'),
  ),
})).table

/** Properties of a message, with any headers. */
export const messageProperties: fc.Arbitrary<MessageProperties> = fc.record(
  {
    messageId: fc.string({ unit: 'binary' }),
    correlationId: text,
    type: text,
    priority: fc.integer({ min: -5, max: 300 }),
    headers: headerTables,
  },
  { requiredKeys: [] },
)
