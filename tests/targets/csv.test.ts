import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { existsSync } from 'node:fs'
import { appendFile, mkdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { v7 as uuidv7 } from 'uuid'
import { ManualClock } from '../../src/runtime/clock.ts'
import { targetContext } from '../support/target-context.ts'
import { until } from '../support/until.ts'
import { askOf, asksOf, type CsvUnderTest, csvExecution, csvUnderTest } from './csv-under-test.ts'

let csv: CsvUnderTest

beforeEach(async () => {
  csv = await csvUnderTest()
})

afterEach(() => csv.end())

const SUCCEEDED = { kind: 'succeeded' } as const
const dead = (error: string) => ({ kind: 'failed', retryable: false, error: expect.stringContaining(error) }) as const
const retried = (error: string) => ({ kind: 'failed', retryable: true, error: expect.stringContaining(error) }) as const

describe('a csv target', () => {
  test("writes a header of the first payload's fields, and a line a task", async () => {
    expect(await csv.run('{"id": 1, "amount": 10.10, "who": "Ada, \\"Countess\\""}')).toEqual(SUCCEEDED)
    expect(await csv.run('{"who": "Bob", "amount": null, "id": 2}')).toEqual(SUCCEEDED)
    expect(csv.text('out.csv')).toBe('id,amount,who\r\n1,10.10,"Ada, ""Countess"""\r\n2,,Bob\r\n')
  })

  test('writes the columns that it is told, from anywhere in the payload', async () => {
    const columns = ['id', { name: 'customer', path: '/customer/name' }, { name: 'all', path: '' }]
    expect(await csv.run('{"id": 7, "customer": {"name": "Ada"}}', { columns, path: 'a/b/orders.csv' })).toEqual(
      SUCCEEDED,
    )
    expect(await csv.run('{"other": 1}', { columns, path: 'a/b/orders.csv' })).toEqual(SUCCEEDED)
    expect(csv.text('a/b/orders.csv')).toBe(
      'id,customer,all\r\n7,Ada,"{""id"": 7, ""customer"": {""name"": ""Ada""}}"\r\n,,"{""other"": 1}"\r\n',
    )
  })

  test('writes without a header, with another delimiter and with guarded formulas', async () => {
    const target = { columns: ['a', 'b'], header: false, delimiter: ';', guardFormulas: true } as const
    expect(await csv.run({ a: '=1+1', b: 'x;y' }, { ...target, columns: ['a', 'b'] })).toEqual(SUCCEEDED)
    expect(csv.text('out.csv')).toBe('\'=1+1;"x;y"\r\n')
  })

  test('takes what comes together in one write', async () => {
    const outcomes = await Promise.all(Array.from({ length: 500 }, (_, n) => csv.run({ n })))
    expect(outcomes).toEqual(outcomes.map(() => SUCCEEDED))
    expect(csv.lines('out.csv')).toEqual(['n', ...Array.from({ length: 500 }, (_, n) => String(n))])
    const heads = csv.text('out.csv.journal').match(/^\{.*$/gm) ?? []
    expect(heads.length).toBeLessThan(10)
  })

  test.each([
    ['no object', '[1]', 'must be an object'],
    ['no fields', '{}', 'has no fields'],
    ['a field twice', '{"a": 1, "a": 2}', 'more than once'],
  ])('refuses a payload that has %s', async (_, payload, error) => {
    expect(await csv.run(payload)).toEqual(dead(error))
    expect(await csv.run({ a: 1 })).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['a', '1'])
  })

  test('refuses a field without a column rather than lose it, and takes the others of its batch', async () => {
    const outcomes = await Promise.all([csv.run({ a: 1 }), csv.run({ a: 2, b: 2 }), csv.run({ a: 3 })])
    expect(outcomes).toEqual([SUCCEEDED, dead('field "b" has no column: the file has "a"'), SUCCEEDED])
    expect(csv.lines('out.csv')).toEqual(['a', '1', '3'])
  })

  test('does not write below what it must not', async () => {
    for (const path of ['out.csv.journal', 'out.csv.journal.3', 'out.1.csv', 'out-2026-11-25.csv']) {
      expect(await csv.run({ a: 1 }, { path })).toEqual(dead('is named like a file'))
    }
    await mkdir(csv.path('in'))
    await symlink('/tmp', csv.path('link'))
    await symlink('/tmp/longshore-elsewhere.csv', csv.path('link.csv'))
    expect(await csv.run({ a: 1 }, { path: 'link/out.csv' })).toEqual(retried('which is not followed'))
    expect(await csv.run({ a: 1 }, { path: 'link.csv' })).toEqual(retried('which is not followed'))
    await symlink('/tmp/longshore-elsewhere', csv.path('journal-link.csv.journal'))
    expect(await csv.run({ a: 1 }, { path: 'journal-link.csv' })).toEqual(retried('which is not followed'))
    await writeFile(csv.path('file'), '')
    expect(await csv.run({ a: 1 }, { path: 'file/out.csv' })).toEqual(retried('no folder'))
    expect(existsSync('/tmp/longshore-elsewhere.csv')).toBe(false)
  })
})

describe('a task has one line', () => {
  test('however often it is attempted, in one batch or later, here or on another node', async () => {
    const id = uuidv7()
    const attempts = await Promise.all([1, 2, 3].map((attempt) => csv.run({ n: 1 }, {}, { id, attempt })))
    expect(attempts).toEqual([SUCCEEDED, SUCCEEDED, SUCCEEDED])
    expect(await csv.run({ n: 1 }, {}, { id, attempt: 4 })).toEqual(SUCCEEDED)
    csv.ledger.names.clear()
    const there = csv.node('there')
    expect(await there(csvExecution({ n: 1 }, {}, { id, attempt: 5 }), targetContext())).toEqual(SUCCEEDED)
    expect(await there(csvExecution({ n: 2 }), targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['n', '1', '2'])
  })

  test('also when it was aborted: either its line is there, or the next attempt writes it', async () => {
    const node = csv.node('here')
    const executions = Array.from({ length: 200 }, (_, n) => csvExecution({ n }))
    const outcomes = await Promise.all(
      executions.map(async (execution, n) => {
        const controller = new AbortController()
        const run = node(execution, targetContext({ signal: controller.signal }))
        for (let turn = 0; turn < n % 40; turn++) await new Promise((resolve) => setImmediate(resolve))
        if (n % 3 > 0) controller.abort()
        return run
      }),
    )
    expect(new Set(outcomes.map(({ kind }) => kind)).size).toBe(2)
    for (const execution of executions) {
      expect(await node({ ...execution, attempt: 2 }, targetContext())).toEqual(SUCCEEDED)
    }
    expect(csv.lines('out.csv').slice(1).sort()).toEqual(executions.map((_, n) => String(n)).sort())
  })
})

describe('a file that is there already', () => {
  test('is continued under its header', async () => {
    await writeFile(csv.path('out.csv'), 'a,b\r\n1,2\r\n')
    expect(await csv.run({ b: 4, a: 3 })).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['a,b', '1,2', '3,4'])
  })

  test('gets an end of line when it has none', async () => {
    await writeFile(csv.path('out.csv'), 'a,b\n1,2')
    expect(await csv.run({ b: 4, a: 3 })).toEqual(SUCCEEDED)
    expect(csv.text('out.csv')).toBe('a,b\n1,2\r\n3,4\r\n')
  })

  test('with other columns is left alone, until somebody moves it away', async () => {
    await writeFile(csv.path('out.csv'), 'a,b\r\n')
    const target = { columns: ['b', 'c'] }
    expect(await csv.run({ b: 1, c: 2 }, target)).toEqual(
      retried('has other columns (a, b) than the target: move it away'),
    )
    await rename(csv.path('out.csv'), csv.path('old.csv'))
    expect(await csv.run({ b: 1, c: 2 }, target)).toEqual(SUCCEEDED)
    expect(csv.text('out.csv')).toBe('b,c\r\n1,2\r\n')
    expect(csv.text('old.csv')).toBe('a,b\r\n')
  })

  test('may be moved away or emptied by its reader at any time, and begins anew with a header', async () => {
    for (let round = 0; round < 3; round++) {
      const id = uuidv7()
      expect(await csv.run({ n: round }, {}, { id })).toEqual(SUCCEEDED)
      await rename(csv.path('out.csv'), csv.path(`taken ${round}.csv`))
      // Its line has been taken: it is not written again.
      expect(await csv.run({ n: round }, {}, { id, attempt: 2 })).toEqual(SUCCEEDED)
      expect(csv.lines(`taken ${round}.csv`)).toEqual(['n', String(round)])
    }
    expect(await csv.run({ n: 9 })).toEqual(SUCCEEDED)
    await truncate(csv.path('out.csv'))
    expect(await csv.node('here')(csvExecution({ n: 10 }), targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['n', '10'])
  })
})

describe('what a crash left behind', () => {
  test('in the file, without a line in the journal, is cut off', async () => {
    await csv.run({ n: 1 })
    await appendFile(csv.path('out.csv'), '2\r\n3\r\nhalf a li')
    const next = csv.node('here')
    expect(await next(csvExecution({ n: 2 }), targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['n', '1', '2'])
  })

  test('in the journal as half a line is cut off, at every length', async () => {
    const first = uuidv7()
    const second = csvExecution({ n: 2 })
    await csv.run({ n: 1 }, {}, { id: first })
    const before = (await readFile(csv.path('out.csv.journal'))).length
    await csv.run({ n: 2 }, {}, { id: second.id })
    const [file, journal] = [await readFile(csv.path('out.csv')), await readFile(csv.path('out.csv.journal'))]
    for (let length = before; length < journal.length; length++) {
      await writeFile(csv.path('out.csv'), file)
      await writeFile(csv.path('out.csv.journal'), journal.subarray(0, length))
      const next = csv.node('here', { ask: askOf(csv.ledger, 'here') })
      expect(await next({ ...second, attempt: 2 }, targetContext())).toEqual(SUCCEEDED)
      expect(csv.lines('out.csv')).toEqual(['n', '1', '2'])
    }
  })

  test('before its first line is no obstacle', async () => {
    await writeFile(csv.path('out.csv'), '')
    await writeFile(csv.path('out.csv.journal'), '')
    expect(await csv.run({ n: 1 })).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['n', '1'])
  })

  test('is not guessed when the journal is damaged in its middle', async () => {
    await csv.run({ n: 1 })
    await csv.run({ n: 2 })
    const journal = await readFile(csv.path('out.csv.journal'), 'utf8')
    await writeFile(csv.path('out.csv.journal'), journal.replace(/ \d+;/, ' x;'))
    const next = csv.node('here')
    expect(await next(csvExecution({ n: 3 }), targetContext())).toEqual(retried('is damaged in its middle'))
    expect(csv.lines('out.csv')).toEqual(['n', '1', '2'])
  })
})

describe('rotation', () => {
  test('by size begins another file, and no file is larger', async () => {
    const rotate = { size: 1_024 }
    const outcomes = await Promise.all(
      Array.from({ length: 400 }, (_, n) => csv.run({ n, text: 'x'.repeat(20) }, { rotate })),
    )
    expect(outcomes).toEqual(outcomes.map(() => SUCCEEDED))
    const names = (await csv.files()).filter((name) => !name.includes('journal'))
    expect(names).toContain('out.csv')
    expect(names).toContain(`out.${names.length - 1}.csv`)
    const numbers: string[] = []
    for (const name of names) {
      const [header, ...lines] = csv.lines(name)
      expect(header).toBe('n,text')
      expect(csv.text(name).length).toBeLessThanOrEqual(1_024)
      numbers.push(...lines.map((line) => line.split(',')[0] ?? ''))
    }
    expect(numbers.sort()).toEqual(outcomes.map((_, n) => String(n)).sort())
  })

  test('keeps the columns that the first file began with, also after a restart', async () => {
    const rotate = { size: 1_024 }
    expect(await csv.run({ b: 'x'.repeat(1_000), a: 1 }, { rotate })).toEqual(SUCCEEDED)
    const next = csv.node('here')
    expect(await next(csvExecution({ a: 2, b: 'y'.repeat(100) }, { rotate }), targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.1.csv')).toEqual(['b,a', `${'y'.repeat(100)},2`])
    // A file that was taken away is another beginning.
    await rename(csv.path('out.1.csv'), csv.path('taken.csv'))
    expect(await next(csvExecution({ c: 3 }, { rotate }), targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.1.csv')).toEqual(['c', '3'])
  })

  test('lets one line that is too large have a file of its own', async () => {
    const rotate = { size: 1_024 }
    for (const size of [10, 3_000, 10]) expect(await csv.run({ t: 'x'.repeat(size) }, { rotate })).toEqual(SUCCEEDED)
    expect([csv.text('out.csv').length, csv.text('out.1.csv').length, csv.text('out.2.csv').length]).toEqual([
      15, 3_005, 15,
    ])
  })

  test('goes on where it was after a restart, and knows the tasks of former files', async () => {
    const rotate = { size: 1_024 }
    const executions = Array.from({ length: 200 }, (_, n) => csvExecution({ n, text: 'x'.repeat(20) }, { rotate }))
    const first = csv.node('here')
    await Promise.all(executions.map((execution) => first(execution, targetContext())))
    const before = await csv.files()
    const next = csv.node('here')
    for (const execution of executions) {
      expect(await next({ ...execution, attempt: 2 }, targetContext())).toEqual(SUCCEEDED)
    }
    expect(await csv.files()).toEqual(before)
    expect(await next(csvExecution({ n: 999, text: 'y' }, { rotate }), targetContext())).toEqual(SUCCEEDED)
    const numberOf = (name: string) => Number(/\.(\d+)\.csv$/.exec(name)?.[1] ?? 0)
    const last = before.reduce((highest, name) => (numberOf(name) > numberOf(highest) ? name : highest))
    expect(csv.lines(last).at(-1)).toBe('999,y')
  })

  test('by day goes by UTC, and with a size it numbers the files of a day', async () => {
    let now = new Date('2026-11-25T23:59:59.500Z')
    const node = csv.node('here', { now: () => now })
    const run = (n: number, size?: number) =>
      node(
        csvExecution({ n, text: 'x'.repeat(600) }, { rotate: { every: 'day', ...(size && { size }) } }),
        targetContext(),
      )
    expect(await run(1)).toEqual(SUCCEEDED)
    now = new Date('2026-11-26T00:00:00.000Z')
    expect(await run(2)).toEqual(SUCCEEDED)
    expect(await run(3, 1_024)).toEqual(SUCCEEDED)
    // A clock that is set back continues the file of that day.
    now = new Date('2026-11-25T12:00:00.000Z')
    expect(await run(4)).toEqual(SUCCEEDED)
    const numbers = (name: string) =>
      csv
        .lines(name)
        .slice(1)
        .map((line) => line.split(',')[0])
    expect(numbers('out-2026-11-25.csv')).toEqual(['1', '4'])
    expect(numbers('out-2026-11-26.csv')).toEqual(['2'])
    expect(numbers('out-2026-11-26.1.csv')).toEqual(['3'])
  })
})

describe('a path has one writer', () => {
  test('another node snoozes, and takes over when the first one has had nothing to do for some seconds', async () => {
    const clock = new ManualClock()
    const [here, there] = [csv.node('here', { clock }), csv.node('there')]
    expect(await here(csvExecution({ n: 1 }), targetContext())).toEqual(SUCCEEDED)
    const snoozed = await there(csvExecution({ n: 2 }), targetContext())
    expect(snoozed).toEqual({ kind: 'snoozed', delayMs: expect.any(Number) })
    clock.advance(5_000)
    await until(() => !csv.ledger.names.has('csv:out.csv'), { what: 'the release' })
    expect(await there(csvExecution({ n: 2 }), targetContext())).toEqual(SUCCEEDED)
    expect(await here(csvExecution({ n: 3 }), targetContext())).toMatchObject({ kind: 'snoozed' })
    expect(csv.lines('out.csv')).toEqual(['n', '1', '2'])
  })

  test('which may go from thread to thread between two batches, as for a task that runs alone', async () => {
    const ask = asksOf(csv.ledger, 'here')
    const threads = [1, 2, 3].map((holder) => csv.node('here', { ask: ask(holder) }))
    for (let n = 0; n < 30; n++) {
      expect(await threads[n % 3]?.(csvExecution({ n }), targetContext())).toEqual(SUCCEEDED)
    }
    expect(csv.lines('out.csv')).toEqual(['n', ...Array.from({ length: 30 }, (_, n) => String(n))])
  })

  test('an outage of the ledger fails nobody', async () => {
    const node = csv.node('here', { ask: () => Promise.reject(new Error('the ledger is away')) })
    expect(await node(csvExecution({ n: 1 }), targetContext())).toMatchObject({ kind: 'snoozed' })
    expect(await csv.files()).toEqual([])
  })

  test('a writer that was taken for dead in the middle of a batch does not count it, and its late writes are cut off', async () => {
    let askedFor = 0
    const inner = askOf(csv.ledger, 'here')
    const takeover = csv.node('there')
    const first = csvExecution({ n: 'first' })
    const node = csv.node('here', {
      ask: (async (question) => {
        // Asked again after the batch is written: by then another node has taken over.
        if (question.kind === 'hold' && ++askedFor === 4) {
          csv.ledger.names.set(question.name, 'nobody')
          csv.ledger.names.delete(question.name)
          csv.ledger.names.set(question.name, 'there')
          expect(await takeover(csvExecution({ n: 'theirs' }), targetContext())).toEqual(SUCCEEDED)
        }
        return inner(question)
      }) as typeof inner,
    })
    expect(await node(csvExecution({ n: 'zero' }), targetContext())).toEqual(SUCCEEDED)
    expect(await node(first, targetContext())).toMatchObject({ kind: 'snoozed' })
    // It had been written and journalled: the next attempt, on the other node, finds it.
    expect(await takeover({ ...first, attempt: 2 }, targetContext())).toEqual(SUCCEEDED)
    // A late append of the former writer, to both files.
    const { ino } = await stat(csv.path('out.csv'))
    const head = `{"at":1,"file":"out.csv","inode":"${ino}","start":3}`
    const unwritten = csvExecution({ n: 'unwritten' })
    await appendFile(csv.path('out.csv'), 'stray\r\n')
    await appendFile(csv.path('out.csv.journal'), `${head}\n${unwritten.id} 9;\n`)
    expect(await takeover(csvExecution({ n: 'last' }), targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['n', 'zero', 'first', 'theirs', 'last'])
    // And the same when the next writer opens the files.
    await appendFile(csv.path('out.csv.journal'), `${head}\n${unwritten.id} 9;\n`)
    csv.ledger.names.clear()
    const third = csv.node('third')
    expect(await third({ ...unwritten, attempt: 2 }, targetContext())).toEqual(SUCCEEDED)
    expect(csv.lines('out.csv')).toEqual(['n', 'zero', 'first', 'theirs', 'last', 'unwritten'])
  })

  test('asks again before it touches a file when it has not asked for long', async () => {
    let at = 0
    const clock = new ManualClock()
    const slow = { now: () => at, after: clock.after.bind(clock) }
    const inner = askOf(csv.ledger, 'here')
    const node = csv.node('here', {
      clock: slow,
      ask: (async (question) => {
        const answer = await inner(question)
        // The answer was late: by the time it came another node may have the name.
        at += 6_000
        csv.ledger.names.set('csv:out.csv', 'there')
        return answer
      }) as typeof inner,
    })
    expect(await node(csvExecution({ n: 1 }), targetContext())).toMatchObject({ kind: 'snoozed' })
    expect(csv.text('out.csv')).toBe('')
  })

  test('a folder that cannot be written is tried again, and mended', async () => {
    await writeFile(csv.path('folder'), '')
    const target = { path: 'folder/out.csv' }
    expect(await csv.run({ n: 1 }, target)).toEqual(retried('no folder'))
    await rm(csv.path('folder'))
    expect(await csv.run({ n: 1 }, target)).toEqual(SUCCEEDED)
  })
})
