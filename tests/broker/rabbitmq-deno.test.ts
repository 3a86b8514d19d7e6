import { describe, expect, test } from 'bun:test'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { denoPath } from '../support/deno.ts'
import { startFaultProxy } from '../support/fault-proxy.ts'
import { HAS_RABBITMQ, testVhost } from '../support/rabbitmq.ts'

describe.if(HAS_RABBITMQ)('RabbitMQ on Deno', () => {
  test('messages go and come, also after a link that was cut and one that froze', async () => {
    await using vhost = await testVhost()
    const url = new URL(vhost.amqpUrl)
    await using proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port) })
    url.host = `127.0.0.1:${proxy.port}`
    const script = join(import.meta.dir, 'rabbitmq-on-deno.ts')
    const child = spawn(denoPath(), ['run', '--allow-all', script, url.href], { stdio: ['ignore', 'pipe', 'inherit'] })
    const steps: string[] = []
    for await (const step of createInterface(child.stdout)) {
      steps.push(step)
      if (step === 'cut') proxy.cutAll()
      if (step === 'freeze') proxy.setFault({ kind: 'hang', afterBytes: 0 })
      if (step === 'thaw') {
        proxy.cutAll()
        proxy.setFault({ kind: 'none' })
      }
    }
    expect(steps).toEqual(['cut', 'freeze', 'thaw', 'done'])
  }, 60_000)
})
