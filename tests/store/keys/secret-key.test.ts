import { afterEach, beforeEach, describe, expect, test } from 'bun:test'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { newSecretKey } from '../../../src/runtime/secret-box.ts'
import { openSecretBox } from '../../../src/store/keys/secret-key.ts'

describe('the key for secrets', () => {
  let folder: string
  let file: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'longshore-secret-'))
    file = join(folder, 'data', 'secret.key')
  })
  afterEach(() => rm(folder, { recursive: true }))

  test('is made once, for the owner alone, and found again', async () => {
    const boxes = await Promise.all([1, 2, 3].map(() => openSecretBox(undefined, file)))
    expect(new Set(boxes.map((box) => box?.keyId)).size).toBe(1)
    expect((await stat(file)).mode & 0o777).toBe(0o600)
    const sealed = boxes[0]?.seal('hunter2', 'x')
    expect(sealed && (await openSecretBox(undefined, file))?.open(sealed, 'x')).toBe('hunter2')
  })

  test('is none when it was not given and the database is not ours', async () => {
    expect(await openSecretBox(undefined, null)).toBeUndefined()
  })

  test('may be given later: it encrypts from then on, and the one in the file still opens', async () => {
    const sealed = (await openSecretBox(undefined, file))?.seal('hunter2', 'x')
    const given = await openSecretBox(newSecretKey(), file)
    expect(given?.keyId).not.toBe(sealed?.keyId)
    expect(sealed && given?.open(sealed, 'x')).toBe('hunter2')
  })

  test('is not made where one was given', async () => {
    await openSecretBox(newSecretKey(), file)
    await expect(readFile(file)).rejects.toThrow('ENOENT')
  })

  test('is not replaced when its file is damaged: what it encrypted would be lost', async () => {
    await openSecretBox(undefined, file)
    await writeFile(file, 'oops')
    await expect(openSecretBox(undefined, file)).rejects.toThrow('does not hold a key of 32 bytes')
  })
})
