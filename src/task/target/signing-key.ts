const PREFIX = 'whsec_'
const BASE64 = /^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}(==)?|[A-Za-z0-9+/]{3}=?)$|^([A-Za-z0-9+/]{4})+$/

/** The key of a target's secret (Standard Webhooks): base64 behind `whsec_`, else the text's own bytes; undefined when it is neither. */
export function signingKey(secret: string): Buffer | undefined {
  if (!secret.startsWith(PREFIX)) return Buffer.from(secret)
  const base64 = secret.slice(PREFIX.length)
  return BASE64.test(base64) ? Buffer.from(base64, 'base64') : undefined
}
