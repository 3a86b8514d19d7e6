import { expect, spyOn, test } from 'bun:test'
import { fetchRegistry } from '../../../src/sources/registry/fetch.ts'
import { type Reply, startSink } from '../../support/sink.ts'

const timeoutOf = AbortSignal.timeout.bind(AbortSignal)

const REPLIES: [string, Reply][] = [
  ['at all', 'hang'],
  ['to its end', (response) => void response.writeHead(200).write('[')],
]

test.each(REPLIES)(
  'a registry that does not answer %s is given up after ten seconds, here made short',
  async (_, reply) => {
    await using sink = await startSink({ reply: () => reply })
    using timeout = spyOn(AbortSignal, 'timeout').mockImplementation(() => timeoutOf(3_000))
    const answer = await fetchRegistry(sink.url(), new AbortController().signal)
    expect(answer).toEqual({ error: `The registry at 127.0.0.1:${sink.port} did not answer within 10 s` })
    expect(timeout).toHaveBeenCalledWith(10_000)
    expect(sink.requests[0]?.path).toBe('/ftp/api/list/')
  },
)
