import type { Database } from '../../../store/database/database.ts'
import { listRejects } from '../../../store/files/list.ts'
import type { Reject } from '../../../task/source/state.ts'
import { textStream } from '../../text-stream.ts'

const A_PAGE = 1_000

/** All rejects of a file as a CSV file (RFC 4180), read page by page as the caller takes it. */
export function rejectsCsv(pool: Database['pool'], file: string, onError: (error: unknown) => void): Response {
  return new Response(textStream(pages(pool, file), onError), {
    headers: {
      'content-type': 'text/csv; charset=utf-8; header=present',
      'content-disposition': `attachment; filename="rejects-${file}.csv"`,
    },
  })
}

async function* pages(pool: Database['pool'], file: string): AsyncGenerator<string, void, void> {
  yield 'number,line,reason,raw\r\n'
  let after = 0
  for (let page: Reject[]; ; ) {
    page = await listRejects(pool, file, A_PAGE, after)
    after = page.at(-1)?.number ?? after
    if (page.length > 0) yield page.map(line).join('')
    if (page.length < A_PAGE) return
  }
}

function line({ number, line: at, reason, raw }: Reject): string {
  return `${number},${at},${quoted(reason)},${quoted(raw)}\r\n`
}

function quoted(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
