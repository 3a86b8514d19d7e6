import { crc32, deflateRawSync } from 'node:zlib'

export interface ZipEntry {
  name: string
  content: Uint8Array | string
  /** Stored as it is. */
  stored?: boolean
  /** What the archive says, where it lies. */
  claims?: { size?: number; crc?: number; method?: number; flags?: number }
}

const DEFLATED = 8
const UTF8_NAME = 0x800

/** A zip archive (APPNOTE 4.3), honest but for what an entry claims. */
export function zipArchive(entries: readonly ZipEntry[]): Buffer {
  const parts: Buffer[] = []
  const directory: Buffer[] = []
  let offset = 0
  for (const { name, content, stored = false, claims = {} } of entries) {
    const bytes = Buffer.from(content)
    const data = stored ? bytes : deflateRawSync(bytes)
    const nameBytes = Buffer.from(name)
    // From "version needed" to "extra field length", the same in both headers.
    const shared = Buffer.alloc(26)
    shared.writeUInt16LE(20, 0)
    shared.writeUInt16LE(UTF8_NAME | (claims.flags ?? 0), 2)
    shared.writeUInt16LE(claims.method ?? (stored ? 0 : DEFLATED), 4)
    shared.writeUInt32LE(claims.crc ?? crc32(bytes), 10)
    shared.writeUInt32LE(data.length, 14)
    shared.writeUInt32LE(claims.size ?? bytes.length, 18)
    shared.writeUInt16LE(nameBytes.length, 22)
    const tail = Buffer.alloc(14)
    tail.writeUInt32LE(offset, 10)
    directory.push(Buffer.from('PK\x01\x02\x14\x00', 'latin1'), shared, tail, nameBytes)
    const local = [Buffer.from('PK\x03\x04', 'latin1'), shared, nameBytes, data]
    parts.push(...local)
    offset += local.reduce((sum, part) => sum + part.length, 0)
  }
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 'latin1')
  end.writeUInt16LE(entries.length, 8)
  end.writeUInt16LE(entries.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  return Buffer.concat([...parts, central, end])
}
