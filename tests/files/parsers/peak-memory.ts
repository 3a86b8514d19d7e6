/**
 * `bun peak-memory.ts <csv|json|lines|xml> <megabytes>`: reads so much of a file that is made on the way, and prints the
 * records and the peak of this process's memory in megabytes, as JSON.
 */
import { openParser } from '../../../src/files/parsers/open-parser.ts'
import type { FileFormat } from '../../../src/task/source/file-format.ts'

interface Made {
  format: FileFormat
  head: string
  row: (number: number) => string
  tail: string
}

const json = (number: number) => `{"id":${number},"name":"Client ${number % 1000}, Ltd","amount":1.50,"tags":["a","b"]}`
const FILES: Record<string, Made> = {
  csv: {
    format: { type: 'csv' },
    head: 'id,name,amount\n',
    row: (n) => `${n},"Client ${n % 1000}, Ltd",1.50\n`,
    tail: '',
  },
  json: { format: { type: 'json', path: '/rows' }, head: '{"rows":[0', row: (n) => `,\n${json(n)}`, tail: ']}' },
  lines: { format: { type: 'json', lines: true }, head: '', row: (n) => `${json(n)}\n`, tail: '' },
  xml: {
    format: { type: 'xml', path: '/rows/row' },
    head: '<rows>',
    row: (n) => `<row id="${n}"><name>Client ${n % 1000}</name><amount>1.50</amount></row>\n`,
    tail: '</rows>',
  },
}

const [kind = '', megabytes] = process.argv.slice(2)
const { format, head, row, tail } = FILES[kind] as Made
let records = 0
let peak = 0
for await (const { entries } of openParser(file, format)) {
  records += entries.length
  peak = Math.max(peak, process.memoryUsage().rss)
}
console.log(JSON.stringify({ records, peak: peak / 1e6 }))

async function* file(): AsyncGenerator<Buffer> {
  let number = 0
  let text = head
  for (let bytes = 0; bytes < Number(megabytes) * 1e6; bytes += text.length, text = '') {
    while (text.length < 65_536) text += row(number++)
    yield Buffer.from(text)
  }
  yield Buffer.from(tail)
}
