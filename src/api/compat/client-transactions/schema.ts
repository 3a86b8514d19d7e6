import { Type } from '@sinclair/typebox'

/** Of an amount's text, whether it is sent as a number or as a text: it is stored as it is, and never rounded. */
export const AMOUNT = '^-?[0-9]{1,8}([.][0-9]{1,2})?$'
export const AMOUNT_RULE = 'at most eight digits before the point and two behind it'

const TRANSACTION = {
  client_name: Type.String({ minLength: 1, maxLength: 10_000 }),
  transaction_type: Type.String({ minLength: 1, maxLength: 10_000 }),
  amount: Type.Union([Type.Number(), Type.String({ pattern: AMOUNT, description: AMOUNT_RULE })]),
  date: Type.String({ pattern: '^[0-9]{4}-[0-9]{2}-[0-9]{2}$' }),
  status: Type.String({ minLength: 1, maxLength: 10_000 }),
}
export const TransactionBody = Type.Object(TRANSACTION, { additionalProperties: false })
export const Transaction = Type.Object({
  id: Type.Integer(),
  client_name: Type.String(),
  transaction_type: Type.String(),
  amount: Type.String({ description: 'With two decimals' }),
  date: Type.String(),
  status: Type.String(),
})
export const TransactionMade = Type.Object({ message: Type.String(), client_transaction: Type.Integer() })

export const TRANSACTION_EXAMPLE = {
  id: 1,
  client_name: 'Ada',
  transaction_type: 'transfer',
  amount: '10.50',
  date: '2026-01-31',
  status: 'completed',
}
