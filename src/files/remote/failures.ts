import {
  type RemoteConnection,
  RemoteFailure,
  type RemoteIdentity,
  type RemoteLayer,
  type RemoteReason,
} from '../remote-files.ts'
import { shown } from './names.ts'

const MAX_GREETING = 500
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out.
const CONTROL_BUT_LINE_ENDS = /[\u0000-\u0009\u000b-\u001f\u007f]/g

/** Makes the failures of one connection. */
export interface Failures {
  /** `doing` follows "Cannot"; `why` is a sentence, without its full stop, whose foreign parts are quoted. */
  fail(layer: RemoteLayer, reason: RemoteReason, doing: string, why: string): RemoteFailure
  /** Text that is not ours, in quotes, fit to be shown; withheld when it repeats a secret of the login. */
  quote(text: string): string
  /** Who answered, as far as is known; every failure tells it. */
  readonly identity: RemoteIdentity
  /** Adds to who answered. */
  learn(part: Partial<RemoteIdentity>): void
}

export function createFailures({ protocol, host, port, auth }: RemoteConnection): Failures {
  const secrets = auth.kind === 'password' ? [auth.password] : [auth.passphrase, auth.privateKey]
  const at = `${protocol}://${host.includes(':') ? `[${host}]` : host}:${port}`
  let identity: RemoteIdentity = { greeting: null, tls: null, hostKey: null }
  return {
    fail: (layer, reason, doing, why) => new RemoteFailure(layer, reason, `Cannot ${doing} at ${at}: ${why}`, identity),
    // Blacking out only the secret would tell a short one by what is missing.
    quote: (text) =>
      secrets.some((secret) => secret && text.includes(secret))
        ? '(withheld, it repeats the password)'
        : `"${shown(text.trim())}"`,
    get identity() {
      return identity
    },
    learn(part) {
      const greeting = part.greeting?.replace(CONTROL_BUT_LINE_ENDS, '').slice(0, MAX_GREETING)
      identity = { ...identity, ...part, ...(greeting !== undefined && { greeting }) }
    },
  }
}

/** What a server's refusal means, as far as its words tell. */
export function reasonOf(text: string): RemoteReason {
  if (/no such|not found|does ?n.t exist|does not exist|cannot find|can't find/i.test(text)) return 'not-found'
  if (/permission|denied|not permitted|not allowed|read-?only/i.test(text)) return 'denied'
  if (/exists/i.test(text)) return 'exists'
  return 'refused'
}

/** The code of a system error, also when Node hands several of them over in one. */
export function codeOf(error: unknown): string {
  const { code, errors } = error as { code?: unknown; errors?: { code?: unknown }[] }
  return String(code ?? errors?.[0]?.code ?? '')
}
