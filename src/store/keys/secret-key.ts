import { createSecretBox, newSecretKey, readSecretKeys, type SecretBox } from '../../runtime/secret-box.ts'
import { keptKey, readKeyFile } from './key-file.ts'

/**
 * The box for stored credentials. The keys of `given` (LONGSHORE_SECRET_KEY) count; with a database of our own the one in
 * `file` opens as well, and is made (mode 0600) when there is no other. Undefined: there is no key, so nothing can be stored
 * that needs one. `file` null: the database is shared, and a key that only this node has would be of no use.
 */
export async function openSecretBox(given: string | undefined, file: string | null): Promise<SecretBox | undefined> {
  const keys = given === undefined ? [] : keysOf(given, 'LONGSHORE_SECRET_KEY')
  if (file !== null) {
    const kept = keys.length === 0 ? await keptKey(file, newSecretKey) : await readKeyFile(file)
    if (kept !== undefined) keys.push(...keysOf(kept, file))
  }
  return keys.length === 0 ? undefined : createSecretBox(keys)
}

function keysOf(text: string, where: string): Buffer[] {
  const keys = readSecretKeys(text)
  if (!keys) throw new Error(`${where} does not hold a key of 32 bytes in hex or base64`)
  return keys
}
