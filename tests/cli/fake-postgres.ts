import { type AddressInfo, createServer, type Socket } from 'node:net'

/**
 * A server that lets everybody in by Postgres's protocol (https://www.postgresql.org/docs/current/protocol-message-formats.html)
 * and can answer one question: which version it is. Everything else it takes without a row.
 */
export async function fakePostgres(version: { number: string; name: string }) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => {})
    let pending = Buffer.alloc(0)
    let started = false
    socket.on('data', (chunk) => {
      pending = Buffer.concat([pending, chunk])
      for (;;) {
        const head = started ? 1 : 0
        if (pending.length < head + 4) return
        const length = pending.readInt32BE(head)
        if (pending.length < head + length) return
        const type = started ? String.fromCharCode(pending[0] ?? 0) : 'startup'
        const body = pending.subarray(head + 4, head + length)
        pending = pending.subarray(head + length)
        if (type === 'startup') {
          started = true
          socket.write(Buffer.concat([message('R', int32(0)), ready()]))
        } else if (type === 'Q') socket.write(answer(body.toString('utf8')))
        else if (type === 'X') socket.end()
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))

  function answer(query: string): Buffer {
    if (!query.includes('server_version_num')) return Buffer.concat([message('C', text('SELECT 0')), ready()])
    const columns = [column('number', 23), column('name', 25)]
    const values = [version.number, version.name].flatMap((value) => [int32(value.length), Buffer.from(value)])
    return Buffer.concat([
      message('T', int16(columns.length), ...columns),
      message('D', int16(2), ...values),
      message('C', text('SELECT 1')),
      ready(),
    ])
  }

  return {
    url: `postgres://me@127.0.0.1:${(server.address() as AddressInfo).port}/old`,
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function int16(value: number): Buffer {
  const buffer = Buffer.alloc(2)
  buffer.writeInt16BE(value)
  return buffer
}

function int32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeInt32BE(value)
  return buffer
}

const text = (value: string) => Buffer.from(`${value}\0`)
const ready = () => message('Z', Buffer.from('I'))
const column = (name: string, type: number) =>
  Buffer.concat([text(name), int32(0), int16(0), int32(type), int16(-1), int32(-1), int16(0)])

function message(type: string, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from(type), int32(body.length + 4), body])
}
