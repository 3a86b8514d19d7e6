/** A connection as the broker itself tells of it, whoever has it. */
export interface BrokerConnection {
  /** What its client calls it, or, where it gave no name, the broker. */
  name: string
  /** `host:port` of the client. */
  peer: string
  user: string | null
  /** The client's library and its version. */
  client: string | null
  /** RFC 3339. */
  since: string | null
  channels: number
}

/** The connections of the vhost; `reason` says why some may be missing. Rejects when the broker cannot be asked. */
export type ReadConnections = () => Promise<{ connections: BrokerConnection[]; reason: string | null }>
