import { RemoteFailure, type RemoteLayer } from '../remote-files.ts'

/** What file systems take, in bytes and in UTF-8. */
const MAX_PATH_BYTES = 4096
const MAX_SHOWN = 200
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for.
const CONTROL = /[\u0000-\u001f\u007f]/

/** Whether text holds what no line of text has. */
export const hasControl = (text: string): boolean => CONTROL.test(text)

/** Why a name from a listing must not be used in a command; undefined when it is good. */
export function refusalOfName(name: string): string | undefined {
  if (name === '') return 'its name is empty'
  if (name === '.' || name === '..') return 'its name stands for a directory'
  if (/[/\\]/.test(name)) return 'its name holds a separator'
  if (hasControl(name)) return 'its name holds a control character'
  if (name.includes('\ufffd')) return 'its name is not UTF-8'
  return undefined
}

/** Text of a server as it can be shown: one line, no control characters, not too long. */
export function shown(text: string): string {
  const escaped = JSON.stringify(text.slice(0, MAX_SHOWN)).slice(1, -1)
  return text.length > MAX_SHOWN ? `${escaped}...` : escaped
}

/** The path of `name` in `directory`. */
export function joinPath(directory: string, name: string): string {
  if (directory === '') return name
  return directory.endsWith('/') ? `${directory}${name}` : `${directory}/${name}`
}

/** The directory that holds `path`. */
export function parentOf(path: string): string {
  const end = path.lastIndexOf('/')
  return end > 0 ? path.slice(0, end) : '/'
}

/**
 * The absolute form of a path that a caller gives, below `home` when it is relative; what is sent to the server.
 * Throws a RemoteFailure of `layer` when a part of it is refused.
 */
export function absolutePath(path: string, home: string, layer: RemoteLayer): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  for (const part of parts) {
    const reason = refusalOfName(part)
    if (reason) throw refusedPath(layer, path, reason.replace('its name', 'a name in it'))
  }
  const absolute = path.startsWith('/') ? `/${parts.join('/')}` : parts.reduce(joinPath, home)
  if (Buffer.byteLength(absolute) > MAX_PATH_BYTES) {
    throw refusedPath(layer, path, `it has more than ${MAX_PATH_BYTES} bytes`)
  }
  return absolute
}

/** The path in the form in which entries below it are told: without a slash at the end, without empty parts. */
export function tidyPath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '' && part !== '.')
  return path.startsWith('/') ? `/${parts.join('/')}` : parts.join('/')
}

function refusedPath(layer: RemoteLayer, path: string, reason: string): RemoteFailure {
  return new RemoteFailure(layer, 'refused', `The path "${shown(path)}" is not used: ${reason}`)
}
