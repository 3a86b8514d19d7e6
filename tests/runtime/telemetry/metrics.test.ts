import { expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createMetrics, type Readings } from '../../../src/runtime/telemetry/metrics.ts'
import { parsePrometheus, total } from '../../support/prometheus.ts'

const THREADS = { threads: 2, lanes: 0, retiring: 0, alone: 0, stuck: 1, running: 3, waiting: 4 }

function readings(more: Partial<Readings> = {}): Readings {
  return {
    accepted: undefined,
    queues: undefined,
    takenQueues: new Set(),
    nodes: undefined,
    threads: THREADS,
    threadsSpawned: 5,
    threadsCrashed: 1,
    pool: { total: 3, idle: 1, waiting: 0 },
    broker: 'up',
    eventClients: 7,
    files: { importing: 2 },
    sources: { total: 3 },
    ...more,
  }
}

test('what is read at the scrape is told as it is then, and a database that is away takes its figures along', async () => {
  const metrics = createMetrics()
  const queues = new Map([['q "1"\n', { depth: { pending: 2, dead: 1 }, oldestWaitingMs: 1_500 }]])
  const nodes = { alive: 2, dead: 0, left: 1, oldestBeatMs: 4_000 }
  const accepted = [
    { queue: 'q', origin: 'api', count: 5 },
    { queue: 'q', origin: 'api', count: 2 },
  ]
  const full = parsePrometheus(
    await metrics.text(readings({ accepted, queues, nodes, takenQueues: new Set(['q "1"\n']) })),
  )
  expect(total(full, 'longshore_tasks_accepted_total', { queue: 'q', origin: 'api' })).toBe(7)
  expect(total(full, 'longshore_queue_tasks', { queue: 'q "1"\n', status: 'pending' })).toBe(2)
  expect(total(full, 'longshore_dispatcher_lag_seconds')).toBe(1.5)
  expect(total(full, 'longshore_database_connections', { state: 'busy' })).toBe(2)
  expect(total(full, 'longshore_threads_spawned_total')).toBe(5)

  const away = parsePrometheus(await metrics.text(readings()))
  expect(total(away, 'longshore_database_up')).toBe(0)
  expect(away.get('longshore_queue_tasks')?.samples).toEqual([])
  expect(total(away, 'longshore_tasks_accepted_total')).toBe(7)
  // A queue that is paused has nothing that could be taken.
  const paused = parsePrometheus(await metrics.text(readings({ queues, nodes })))
  expect(total(paused, 'longshore_dispatcher_lag_seconds')).toBe(0)
  metrics.stop()
})

test('a broker that is away and one that takes nothing are told apart', async () => {
  const metrics = createMetrics()
  const told = async (broker: Readings['broker']) => {
    const families = parsePrometheus(await metrics.text(readings({ broker })))
    return [total(families, 'longshore_broker_up'), total(families, 'longshore_broker_blocked')]
  }
  expect([await told('up'), await told('down'), await told('blocked')]).toEqual([
    [1, 0],
    [0, 0],
    [1, 1],
  ])
  metrics.stop()
})

test('the documentation names every metric, and dashboard and alerts none that is not there', async () => {
  const metrics = createMetrics()
  const families = parsePrometheus(await metrics.text(readings()))
  metrics.stop()
  const read = (name: string) => readFileSync(join(import.meta.dir, '../../../docs', name), 'utf8')
  const documented = [...read('metrics.md').matchAll(/^\| `(\w+)` \| (\w+) \| [^|]* \| (.*) \|$/gm)]
  const shown = documented.map(([, name = '', type = '', help = '']) => [name, type, help])
  expect(shown).toEqual([...families].map(([name, { type, help }]) => [name, type, help]))

  JSON.parse(read('grafana-dashboard.json'))
  for (const file of ['grafana-dashboard.json', 'alerts.yaml']) {
    const used = new Set([...read(file).matchAll(/\b(longshore|process)_[a-z_]+[a-z]/g)].map(([name]) => name))
    const known = [...families].flatMap(([name, { type }]) =>
      type === 'histogram' ? [name, `${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
    )
    expect([...used].filter((name) => !known.includes(name))).toEqual([])
    expect(used.size).toBeGreaterThan(8)
  }
})
