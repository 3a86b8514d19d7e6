import { type NodeFolder, type NodeProcess, spawnNode } from './node-process.ts'

export interface WorkerOptions {
  /** The server's URL, or a port of loopback where it will be. */
  server: string
  /** A key with the scope `work`. */
  key: string
  amqpUrl: string
  env?: Record<string, string>
}

/** Starts `longshore worker` in `folder`, with nothing of the server's but its handlers, and does not wait for it. */
export function spawnWorker(
  folder: Pick<NodeFolder, 'path'>,
  { server, key, amqpUrl, env = {} }: WorkerOptions,
  command?: readonly string[],
): NodeProcess {
  return spawnNode(folder, {
    run: 'worker',
    ...(command && { command }),
    env: { LONGSHORE_URL: server, LONGSHORE_KEY: key, AMQP_URL: amqpUrl, DATA_DIR: '/nonexistent', ...env },
  })
}

/** Starts `longshore worker` and waits until it works. */
export async function startWorkerProcess(
  folder: Pick<NodeFolder, 'path'>,
  options: WorkerOptions,
): Promise<NodeProcess> {
  const worker = spawnWorker(folder, options)
  await worker.listening
  return worker
}

/** A key for workers of the installation. */
export async function workKey(node: NodeProcess, name = 'worker'): Promise<string> {
  return (await node.call<{ key: string }>('POST', '/keys', { name, scopes: ['work'] })).key
}
