import { type Static, type TObject, Type } from '@sinclair/typebox'
import { invalid, Problem } from '../runtime/errors.ts'
import { PRIORITIES } from '../task/limits.ts'
import { checkEnvelope, memberText, parseJson, readText, SUBMISSION_BYTES } from './body.ts'
import { checked, refuse, unstorable } from './validation.ts'

const HEADERS_BYTES = 16 * 1024

/** Those of brokers and ours say where a message has been: nobody else may write them. */
/** So many characters have no more than the 255 bytes of a header's name (AMQP 0-9-1, 4.2.5.5). */
const HeaderName = '^(?!x-longshore-)(?!x-death$)(?!x-(first|last)-death-)(?!x-delivery-count$)(?!B?CC$).{1,85}$'
const Headers = Type.Record(
  Type.String({ pattern: HeaderName }),
  Type.Union([Type.String({ maxLength: 4_096 }), Type.Number(), Type.Boolean(), Type.Null()]),
  {
    additionalProperties: false,
    maxProperties: 64,
    description: 'Shown with the task, and borne by its message at RabbitMQ; up to 16 KiB',
  },
)

/** The fields of a message, whatever it is sent to. */
export const MessageFields = {
  body: Type.Unknown({ description: "Any JSON up to 1 MiB: the task's payload, kept as the very text" }),
  headers: Type.Optional(Headers),
  priority: Type.Optional(Type.Integer({ minimum: 0, maximum: PRIORITIES - 1, default: 0 })),
}
type Fields = Static<TObject<typeof MessageFields>>

export interface ReadMessage<F> {
  /** All fields but the body. */
  message: Omit<F, 'body'>
  /** The submission that it is, at this address, with the body's very text. */
  submission(address: { queue: string } | { exchange: string; routingKey: string }): string
}

/** Reads a message of `schema` from a request. Throws Problem. */
export async function readMessage<S extends TObject<typeof MessageFields>>(
  schema: S,
  request: Request,
): Promise<ReadMessage<Static<S> & Fields>> {
  const text = await readText(request, SUBMISSION_BYTES)
  const { body: _, ...message } = checked(schema, parseJson(text)) as Static<S> & Fields
  checkEnvelope(text)
  const [wrong] = unstorable(message)
  if (wrong) refuse(wrong.path, wrong.message)
  if (Buffer.byteLength(JSON.stringify(message.headers ?? {})) > HEADERS_BYTES) {
    throw invalid('/headers', `may have at most ${HEADERS_BYTES} bytes`, 'too-large')
  }
  const body = memberText(text, 'body') ?? refuse('/body', 'is required')
  return {
    message,
    submission(address) {
      const fields = JSON.stringify({ ...address, priority: message.priority ?? 0 })
      return `${fields.slice(0, -1)},"payload":${body}}`
    },
  }
}

/** What is kept of a message beside its body: JSON text of a StrayMessage, or nothing without headers. */
export function keptMessage(exchange: string, routingKey: string, headers: Fields['headers']): string | null {
  if (!headers || Object.keys(headers).length === 0) return null
  return JSON.stringify({ exchange, routingKey, properties: {}, headers })
}

/** What the one door says of a submission, in the words of the message. */
export function asOfMessage(error: Problem): Problem {
  const errors = error.errors.map(({ path, message }) => ({ path: path.replace(/^\/payload/, '/body'), message }))
  return new Problem(error.code, error.detail.replace(/^\/payload/, '/body'), errors, { cause: error })
}
