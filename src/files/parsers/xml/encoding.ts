import type { Encoding } from '../../../task/source/file-format.ts'
import { FileFault } from '../../file-fault.ts'
import { type Detected, detectMark } from '../text-input.ts'

/** Bytes in which an XML declaration is looked for. */
export const XML_HEAD = 256

const NAMES: Record<string, Encoding> = {
  'utf-8': 'utf-8',
  utf8: 'utf-8',
  'us-ascii': 'utf-8',
  'iso-8859-1': 'iso-8859-1',
  latin1: 'iso-8859-1',
  'windows-1252': 'windows-1252',
  cp1252: 'windows-1252',
}

/** The encoding of an XML file by its byte order mark, its first characters, or its declaration. Throws FileFault `unsupported`. */
export function detectXml(head: Uint8Array): Detected {
  const marked = detectMark(head)
  if (marked) return marked
  if (head[0] === 0x3c && head[1] === 0) return { encoding: 'utf-16le', markBytes: 0 }
  if (head[0] === 0 && head[1] === 0x3c) return { encoding: 'utf-16be', markBytes: 0 }
  const text = Buffer.from(head).toString('latin1')
  const name = /^<\?xml\s[^>]*?encoding\s*=\s*["']([A-Za-z0-9._-]+)["']/.exec(text)?.[1]
  if (name === undefined) return { encoding: 'utf-8', markBytes: 0 }
  const encoding = NAMES[name.toLowerCase()]
  if (encoding) return { encoding, markBytes: 0 }
  const advice = 'let the file be written in UTF-8, UTF-16, ISO-8859-1 or Windows-1252'
  throw new FileFault('unsupported', `The file's encoding ${name} is not read`, advice)
}
