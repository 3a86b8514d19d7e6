import { afterAll, afterEach, beforeAll, describe, expect, test } from 'bun:test'
import { beginEpoch, readEpoch } from '../../../src/store/topology/broker-epoch.ts'
import { ENGINES } from '../../support/database.ts'
import { type TaskLedger, taskLedger } from '../../support/tasks.ts'

const BROKER = 'rabbitmq:/'

describe.each(ENGINES)('the epoch of the broker on %s', (engine) => {
  let ledger: TaskLedger
  beforeAll(async () => {
    ledger = await taskLedger(engine)
  })
  afterEach(async () => {
    await ledger.pool.query(`delete from settings where name = 'broker-epoch'`)
    await ledger.clear()
  })
  afterAll(() => ledger.test.drop())

  const queued = async (count: number): Promise<string[]> => {
    const ids = await ledger.insertMany(Array.from({ length: count }, () => ({})))
    await ledger.pool.query(
      `update tasks set status = 'queued', publisher = $2, publish_no = 1 where id = any($1::uuid[])`,
      [ids, ledger.node],
    )
    return ids
  }

  test('11: a new epoch sends everything again that was handed to the broker, and nothing else', async () => {
    expect(await readEpoch(ledger.pool, BROKER)).toBeUndefined()
    const running = await ledger.insert()
    await ledger.claimOne(running)
    const ids = await queued(3)
    const { epoch, begun, ...returned } = await beginEpoch(ledger.pool, BROKER, undefined)
    expect([begun, returned.ids.toSorted(), returned.queues]).toEqual([true, ids.toSorted(), ['default']])
    expect(await readEpoch(ledger.pool, BROKER)).toBe(epoch)
    expect(await ledger.status(running)).toBe('running')
    for (const id of ids) expect(await ledger.status(id)).toBe('pending')
  })

  test('11: of nodes that see the same wipe one begins the epoch; the others return nothing that is queued since', async () => {
    const { epoch: old } = await beginEpoch(ledger.pool, BROKER, undefined)
    await queued(2)
    const begun = await Promise.all([1, 2, 3, 4].map(() => beginEpoch(ledger.pool, BROKER, old)))
    expect(begun.filter((one) => one.begun)).toHaveLength(1)
    expect(new Set(begun.map(({ epoch }) => epoch)).size).toBe(1)
    expect(begun.flatMap(({ ids }) => ids)).toHaveLength(2)

    const [id] = await queued(1)
    expect(await beginEpoch(ledger.pool, BROKER, old)).toMatchObject({ begun: false, ids: [] })
    expect(await ledger.status(id as string)).toBe('queued')
  })

  test('11: another broker is another epoch, and so is the way back', async () => {
    const { epoch } = await beginEpoch(ledger.pool, BROKER, undefined)
    expect(await readEpoch(ledger.pool, 'in-process')).toBeUndefined()
    await beginEpoch(ledger.pool, 'in-process', undefined)
    expect(await readEpoch(ledger.pool, BROKER)).toBeUndefined()
    await queued(1)
    const back = await beginEpoch(ledger.pool, BROKER, undefined)
    expect([back.begun, back.ids.length, back.epoch === epoch]).toEqual([true, 1, false])
  })
})
