import { createCipheriv, createDecipheriv, createHash, createSecretKey, type KeyObject, randomBytes } from 'node:crypto'

/*
 * Encrypts what is kept in the ledger and must not be read there: AES-256-GCM with a fresh nonce each time. What a secret is
 * about goes in as associated data, so that nobody can move it to another row and have it opened there.
 */

/** A secret as it is stored. */
export interface Sealed {
  /** Which key opens it. */
  keyId: string
  /** Nonce (12 bytes), tag (16), ciphertext. */
  bytes: Buffer
}

/** The first key seals, all of them open: so a key can be replaced while both are given. */
export interface SecretBox {
  /** Of the key that seals. */
  readonly keyId: string
  /** `about` names the one row that it belongs to. */
  seal(text: string, about: string): Sealed
  /** Throws SecretUnreadable. */
  open(sealed: Sealed, about: string): string
}

/** The stored secret cannot be opened with the keys of this node; the message never holds any of it. */
export class SecretUnreadable extends Error {
  override readonly name = 'SecretUnreadable'
}

const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
const CIPHER = 'aes-256-gcm'

/** A new key, as text. */
export function newSecretKey(): string {
  return randomBytes(KEY_BYTES).toString('base64url')
}

/** One key of 32 bytes in hex, base64 or base64url; undefined when the text is none. */
export function readSecretKey(text: string): Buffer | undefined {
  if (/^[0-9a-f]{64}$/i.test(text)) return Buffer.from(text, 'hex')
  if (!/^[A-Za-z0-9+/_-]{43}=?$/.test(text)) return undefined
  const key = Buffer.from(text, 'base64url')
  return key.length === KEY_BYTES ? key : undefined
}

/** The keys of a list that is separated by commas; undefined when one of them is none. */
export function readSecretKeys(text: string): Buffer[] | undefined {
  const keys = text.split(',').map((part) => readSecretKey(part.trim()))
  return keys.every((key) => key !== undefined) ? keys : undefined
}

/** A box with at least one key. */
export function createSecretBox(keys: readonly Buffer[]): SecretBox {
  const byId = new Map(keys.map((key) => [idOf(key), createSecretKey(key)]))
  const [first] = byId
  if (!first) throw new Error('A secret box needs a key')
  const [keyId, sealing] = first
  return {
    keyId,
    seal: (text, about) => ({ keyId, bytes: seal(sealing, text, `${keyId}\0${about}`) }),
    open({ keyId: id, bytes }, about) {
      const key = byId.get(id)
      if (!key) {
        throw new SecretUnreadable(
          `It was encrypted with the key "${id}", which this node does not have: add that key to LONGSHORE_SECRET_KEY`,
        )
      }
      return open(key, bytes, `${id}\0${about}`)
    },
  }
}

/** Tells keys apart without telling anything about them. */
function idOf(key: Buffer): string {
  return createHash('sha256').update('longshore secret key\0').update(key).digest('hex').slice(0, 12)
}

function seal(key: KeyObject, text: string, associated: string): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES }).setAAD(Buffer.from(associated))
  const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
  return Buffer.concat([nonce, cipher.getAuthTag(), sealed])
}

function open(key: KeyObject, bytes: Buffer, associated: string): string {
  const nonce = bytes.subarray(0, NONCE_BYTES)
  const tag = bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES)
  try {
    const cipher = createDecipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES })
    cipher.setAAD(Buffer.from(associated)).setAuthTag(tag)
    const opened = Buffer.concat([cipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES)), cipher.final()])
    return opened.toString('utf8')
  } catch {
    throw new SecretUnreadable('It is damaged, or was written for something else: give it anew')
  }
}
