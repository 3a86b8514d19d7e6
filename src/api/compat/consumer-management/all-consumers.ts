import type { Database } from '../../../store/database/database.ts'
import { type Consumer, listConsumers } from '../../../store/topology/consumers.ts'

const A_PAGE = 500

/** All consumers, or all of a queue: the older lists have no pages. */
export async function allConsumers(db: Database['db'], queue?: string): Promise<Consumer[]> {
  const all: Consumer[] = []
  for (let page: Consumer[]; ; ) {
    page = await listConsumers(db, { queue, after: all.at(-1)?.id, limit: A_PAGE })
    all.push(...page)
    if (page.length < A_PAGE) return all
  }
}
