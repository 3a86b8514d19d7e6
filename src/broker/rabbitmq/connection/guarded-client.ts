import { AMQPClient, type AMQPMessage } from '@cloudamqp/amqp-client'
import type { AMQPChannel } from '@cloudamqp/amqp-client/amqp-channel'
import type { AMQPView } from '@cloudamqp/amqp-client/amqp-view'
import type { BrokerAddress } from '../../../runtime/amqp-url.ts'
import { UNREADABLE_HEADER } from '../../wire-form.ts'
import { clientUrl } from './address.ts'

const METHOD_FRAME = 1
const HEADER_FRAME = 2
const FRAME_START = 7
const CONNECTION_START = (10 << 16) | 10

export interface ClientOptions {
  address: BrokerAddress
  /** PEM; absent: the public certificates. */
  ca?: string | undefined
  name: string
  heartbeatSeconds: number
}

/**
 * The library's client, with what would end a process made harmless: a frame that it cannot read, and a send that fails
 * and that the library does not wait for. Used once; a new try takes a new one.
 */
export class GuardedClient extends AMQPClient {
  /** Set by every frame that comes; the link watch sets it back. */
  heard = false
  /** The server's version as it tells it; '' until then. */
  serverVersion = ''

  constructor({ address, ca, name, heartbeatSeconds }: ClientOptions) {
    const parameters = { name, frameMax: '131072', heartbeat: String(heartbeatSeconds) }
    super(clientUrl(address, parameters), ca === undefined ? undefined : { ca })
    this.onerror = () => {}
    Object.assign(this, {
      // An IPv6 address comes in brackets out of a URL, which no socket takes.
      host: address.host,
      // Handed on as a bare function by the library.
      rejectConnect: (Reflect.get(this, 'rejectConnect') as (error: Error) => void).bind(this),
    })
  }

  /** Rejects for who waits for it; the first bytes of a connection, and some others, are waited for by nobody. */
  override send(bytes: Uint8Array): Promise<void> {
    const sent = super.send(bytes)
    sent.catch(() => {})
    return sent
  }

  protected override parseFrames(view: AMQPView): void {
    this.heard = true
    try {
      if (this.closed && this.serverVersion === '') this.serverVersion = serverVersionIn(view)
      super.parseFrames(view)
    } catch (error) {
      if (view.getUint8(0) === HEADER_FRAME && this.#withoutProperties(view)) return
      this.socket?.destroy(error as Error)
    }
  }

  /**
   * Goes on with a message whose properties cannot be read, without them: destroying the connection would bring the message
   * back again and again.
   */
  #withoutProperties(view: AMQPView): boolean {
    const channel = this.channels[view.getUint16(1)] as (AMQPChannel & Assembling) | undefined
    const message = channel?.delivery ?? channel?.returned
    if (!channel || !message) return false
    message.bodySize = view.getUint64(FRAME_START + 4)
    message.properties = { headers: { [UNREADABLE_HEADER]: true } }
    message._rawBytes = new Uint8Array(message.bodySize)
    if (message.bodySize === 0) channel.onMessageReady(message)
    return true
  }
}

/** What is being put together from its frames; the library's types do not tell. */
interface Assembling {
  delivery?: AMQPMessage & { _rawBytes: Uint8Array }
  returned?: AMQPMessage & { _rawBytes: Uint8Array }
}

function serverVersionIn(view: AMQPView): string {
  if (view.getUint8(0) !== METHOD_FRAME || view.getUint32(FRAME_START) !== CONNECTION_START) return ''
  const [properties] = view.getTable(FRAME_START + 4 + 2)
  return typeof properties.version === 'string' ? properties.version : ''
}
