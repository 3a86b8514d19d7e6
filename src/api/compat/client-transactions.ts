import type { Static } from '@sinclair/typebox'
import { Type } from '@sinclair/typebox'
import { Elysia } from 'elysia'
import { invalid, messageOf, Problem } from '../../runtime/errors.ts'
import type { Logger } from '../../runtime/log.ts'
import type { ClientTransaction, TransactionPage } from '../../store/client-transactions.ts'
import type { Access } from '../access.ts'
import { describe } from '../openapi/describe.ts'
import { problemOf } from '../problem.ts'
import { textStream } from '../text-stream.ts'
import * as schema from './client-transactions/schema.ts'
import { readOldBody } from './old-body.ts'
import { Errors, orErrors } from './old-errors.ts'

export interface ClientTransactionDeps {
  log: Logger
  /** Makes the table where rows of files end, unless it is there. */
  ensureTransactions(): Promise<void>
  /** At most `limit` rows by their id, behind the place that a page before gave as its `next`. */
  listTransactions(limit: number, after?: string): Promise<TransactionPage>
  /** Gives the id. Rejects as the database does when a value does not fit. */
  insertTransaction(row: Omit<ClientTransaction, 'id'>): Promise<number>
}

const A_PAGE = 1_000
const older = { tag: 'compat', older: { invalid: 'bad-request' } } as const

/** The table of the older file importer over REST. */
export function clientTransactionRoutes(access: Access, deps: ClientTransactionDeps) {
  return new Elysia()
    .use(access)
    .get(
      '/client/api/list/',
      async ({ request }) => {
        await deps.ensureTransactions()
        const first = await inTable(() => deps.listTransactions(A_PAGE))
        const stream = textStream(arrayFrom(first, deps), (error) => problemOf(error, request, deps.log))
        return new Response(stream, { headers: { 'content-type': 'application/json' } })
      },
      {
        scope: 'read',
        detail: describe({
          ...older,
          summary: 'List client transactions',
          description: 'All rows of the table `client_transaction` by their id.',
          responses: { 200: ['The rows', Type.Array(schema.Transaction), [schema.TRANSACTION_EXAMPLE]] },
          problems: ['conflict'],
        }),
      },
    )
    .post(
      '/client/api/create/',
      ({ request }) =>
        orErrors(async () => {
          const { body, texts } = await readOldBody(schema.TransactionBody, request)
          const amount = amountOf(body, texts)
          await deps.ensureTransactions()
          const id = await insert(deps, { ...body, amount })
          const message = 'Client transaction created successfully'
          return Response.json({ message, client_transaction: id }, { status: 201 })
        }),
      {
        scope: 'submit',
        parse: 'none',
        detail: describe({
          ...older,
          summary: 'Add a client transaction',
          description: 'Writes one row into the table `client_transaction`; it is committed when the answer comes.',
          body: [schema.TransactionBody, withoutId(schema.TRANSACTION_EXAMPLE)],
          responses: {
            201: [
              'The row was added',
              schema.TransactionMade,
              { message: 'Client transaction created successfully', client_transaction: 1 },
            ],
            400: ['What is not valid, by field', Errors, { errors: { date: ['is not a date'] } }],
          },
          problems: ['conflict'],
        }),
      },
    )
}

function withoutId({ id: _, ...row }: typeof schema.TRANSACTION_EXAMPLE) {
  return row
}

/** The rows as a JSON array, a page at a time. */
async function* arrayFrom(
  first: TransactionPage,
  { listTransactions }: Pick<ClientTransactionDeps, 'listTransactions'>,
): AsyncGenerator<string, void, void> {
  const textOf = ({ rows }: TransactionPage) => rows.map((row) => JSON.stringify(row)).join(',')
  yield `[${textOf(first)}`
  for (let { next } = first; next !== undefined; ) {
    const page = await listTransactions(A_PAGE, next)
    if (page.rows.length > 0) yield `,${textOf(page)}`
    next = page.next
  }
  yield ']'
}

const UNDEFINED_COLUMN = '42703'

/** A table of somebody else's making need not have what these routes show. */
async function inTable<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if ((error as { code?: string }).code !== UNDEFINED_COLUMN) throw error
    throw new Problem('conflict', `The table "client_transaction" is another one: ${messageOf(error)}`)
  }
}

/** As it was sent: what a number would round away is refused. */
function amountOf({ amount }: Static<typeof schema.TransactionBody>, texts: ReadonlyMap<string, string>): string {
  if (typeof amount === 'string') return amount
  const text = texts.get('amount') ?? ''
  if (!new RegExp(schema.AMOUNT).test(text)) throw invalid('/amount', `must have ${schema.AMOUNT_RULE}`)
  return text
}

async function insert(deps: ClientTransactionDeps, row: Omit<ClientTransaction, 'id'>): Promise<number> {
  try {
    return await inTable(() => deps.insertTransaction(row))
  } catch (error) {
    throw misfit(error) ?? error
  }
}

/** What the pattern lets through and the column does not: a 30th of February, an amount of more digits. */
const FIELDS: Record<string, readonly [path: string, message: string]> = {
  '22007': ['/date', 'is not a date'],
  '22008': ['/date', 'is not a date'],
  '22003': ['/amount', 'has more digits than its column takes'],
}
const UNIQUE_VIOLATION = '23505'

/** What the table says of a row that does not fit it (classes 22 and 23 of https://www.postgresql.org/docs/current/errcodes-appendix.html). */
function misfit(error: unknown): Problem | undefined {
  const { code = '', column } = error as { code?: string; column?: string }
  const known = FIELDS[code]
  if (known) return invalid(...known)
  if (code === UNIQUE_VIOLATION) return new Problem('conflict', `There is such a row already: ${messageOf(error)}`)
  if (!/^2[23]/.test(code)) return undefined
  return invalid(column === undefined ? '' : `/${column}`, `does not fit the table: ${messageOf(error)}`)
}
