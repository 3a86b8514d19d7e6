/** Headers that frame the request or the connection; a target that set them could smuggle a second request. */
const FRAMING = [
  'connection',
  'content-length',
  'expect',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]

/** Headers by which receivers know and check a delivery. */
const OURS = /^(webhook-|x-longshore-)/

/** True for headers of a message by which Longshore knows its own: one that was forged would speak for another task. */
export function isOwnMessageHeader(name: string): boolean {
  return name.toLowerCase().startsWith('x-longshore-')
}

/** True when an http target may not set the header `name`, because Longshore does. Names are compared without case. */
export function isReservedHeader(name: string): boolean {
  const lower = name.toLowerCase()
  return FRAMING.includes(lower) || OURS.test(lower)
}
