import { describe, expect, test } from 'bun:test'
import { randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { createSecretBox, newSecretKey, readSecretKey, readSecretKeys } from '../../src/runtime/secret-box.ts'

const key = () => randomBytes(32)

describe('a secret box', () => {
  test('opens what it sealed, whatever it is, and never writes it down', () => {
    const box = createSecretBox([key()])
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), fc.string(), (text, about) => {
        const sealed = box.seal(text, about)
        expect(box.open(sealed, about)).toBe(text.toWellFormed())
        if (text.length > 3) expect(sealed.bytes.includes(Buffer.from(text))).toBe(false)
      }),
    )
  })

  test('seals the same text differently each time', () => {
    const box = createSecretBox([key()])
    expect(box.seal('a', 'x').bytes.equals(box.seal('a', 'x').bytes)).toBe(false)
  })

  test('does not open a secret that was moved to another row', () => {
    const box = createSecretBox([key()])
    const sealed = box.seal('hunter2', 'source:1')
    expect(() => box.open(sealed, 'source:2')).toThrow('It is damaged, or was written for something else')
  })

  test('does not open a secret of which one bit was changed', () => {
    const box = createSecretBox([key()])
    const { keyId, bytes } = box.seal('hunter2', 'x')
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 1
      expect(() => box.open({ keyId, bytes: changed }, 'x')).toThrow('It is damaged')
    }
    expect(() => box.open({ keyId, bytes: bytes.subarray(0, 5) }, 'x')).toThrow('It is damaged')
  })

  test('seals with the first key and opens with all of them', () => {
    const [before, after] = [key(), key()]
    const sealed = createSecretBox([before]).seal('hunter2', 'x')
    const both = createSecretBox([after, before])
    expect(both.open(sealed, 'x')).toBe('hunter2')
    expect(both.seal('hunter2', 'x').keyId).not.toBe(sealed.keyId)
    expect(() => createSecretBox([after]).open(sealed, 'x')).toThrow(`key "${sealed.keyId}", which this node does not`)
  })

  test('reads keys in hex and base64, and nothing that is too short', () => {
    const bytes = key()
    for (const encoding of ['hex', 'base64', 'base64url'] as const) {
      expect(readSecretKey(bytes.toString(encoding))?.equals(bytes)).toBe(true)
    }
    expect(readSecretKey(newSecretKey())).toHaveLength(32)
    for (const text of ['', 'hunter2', bytes.toString('hex').slice(1), bytes.toString('base64').slice(2)]) {
      expect(readSecretKey(text)).toBeUndefined()
    }
    expect(readSecretKeys(`${newSecretKey()},`)).toBeUndefined()
  })
})
