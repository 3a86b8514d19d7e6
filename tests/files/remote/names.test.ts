import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { absolutePath, joinPath, parentOf, refusalOfName, shown, tidyPath } from '../../../src/files/remote/names.ts'

describe('names', () => {
  test.each(['a', 'a b', '"', "'", 'ü', '...', '..a', '-rf', '~', '*', '🚢', ' '])('%p is used', (name) => {
    expect(refusalOfName(name)).toBeUndefined()
  })
  test.each(['', '.', '..', 'a/b', 'a\\b', 'a\rb', 'a\nb', 'a\0b', 'a\u001bb', 'a\ufffd'])('%p is refused', (name) => {
    expect(refusalOfName(name)).toStartWith('its name ')
  })
})

describe('paths', () => {
  test.each([
    ['', '/home/joe', '/home/joe'],
    ['.', '/home/joe', '/home/joe'],
    ['in/new', '/home/joe', '/home/joe/in/new'],
    ['in', '/', '/in'],
    ['/', '/home/joe', '/'],
    ['//srv///data/./x/', '/home/joe', '/srv/data/x'],
  ])('%p of a login in %s is %s', (path, home, absolute) => {
    expect(absolutePath(path, home, 'read')).toBe(absolute)
  })

  test('nothing that is not refused leads out of its directory or ends a command', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (path) => {
        let absolute: string
        try {
          absolute = absolutePath(`in/${path}`, '/home', 'read')
        } catch {
          return
        }
        expect(absolute).toStartWith('/home/in')
        expect(absolute.split('/')).not.toContain('..')
        expect(absolute).not.toMatch(/[\r\n\0]/)
      }),
      { numRuns: 1_000 },
    )
  })

  test('are joined, split and written in one form', () => {
    expect([joinPath('', 'a'), joinPath('/', 'a'), joinPath('in', 'a')]).toEqual(['a', '/a', 'in/a'])
    expect([parentOf('/a'), parentOf('/a/b')]).toEqual(['/', '/a'])
    expect([tidyPath('./a//b/'), tidyPath('/'), tidyPath('.')]).toEqual(['a/b', '/', ''])
  })
})

test('text is shown in one line and not for ever', () => {
  expect(shown('a\r\n\u001b"b')).toBe('a\\r\\n\\u001b\\"b')
  expect(shown('x'.repeat(1_000))).toHaveLength(203)
})
