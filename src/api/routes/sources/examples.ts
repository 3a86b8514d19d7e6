import { SOURCE_EXAMPLE as BODY } from '../../../task/source/source.ts'

const { auth: _, ...settings } = BODY

const HOST_KEY = {
  hostKey: { algorithm: 'ssh-ed25519', fingerprint: 'SHA256:Xo4vC8w9xCq0d3iJ7cFvM1n2b5a6s7d8f9g0h1j2k3A' },
  certificate: null,
  at: '2026-01-01T00:00:00.000Z',
}

export const SOURCE_EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000010',
  ...settings,
  auth: { kind: 'password', username: 'reports', secret: 'given' },
  paused: false,
  status: 'active',
  managedBy: null,
  externalId: null,
  goneAt: null,
  pinned: HOST_KEY,
  alert: null,
  nextPollAt: '2026-01-01T00:10:00.000Z',
  polledAt: '2026-01-01T00:05:00.420Z',
  poll: {
    startedAt: '2026-01-01T00:05:00.010Z',
    tookMs: 410,
    entries: 3,
    files: 2,
    new: 1,
    changed: 0,
    incomplete: 0,
    left: 0,
    fetched: 1,
    bytes: 105_120,
    refused: { count: 0, first: [] },
    failed: { count: 0, first: [] },
    error: null,
  },
  createdAt: '2026-01-01T00:00:00.000Z',
  updatedAt: '2026-01-01T00:00:00.000Z',
}

const ENTRY = {
  path: '/outgoing/transactions.csv',
  kind: 'file',
  size: 105_120,
  modified: '2026-01-01T00:00:00.000Z',
}

export const TEST_EXAMPLE = {
  ok: true,
  failure: null,
  tookMs: 320,
  greeting: 'OpenSSH_9.2p1',
  tlsVersion: null,
  identity: HOST_KEY,
  listing: { looked: 3, files: [ENTRY] },
  preview: {
    path: ENTRY.path,
    contentType: 'csv',
    rejects: [],
    records: [{ client_name: 'Ada', transaction_type: 'transfer', amount: '10.50' }],
  },
}

export const BROWSE_EXAMPLE = { path: '/outgoing', items: [{ ...ENTRY, reason: null }], more: false }

export const FILE_EXAMPLE = {
  id: '019b7a3e-5c00-7000-8000-000000000020',
  sourceId: SOURCE_EXAMPLE.id,
  source: 'bank',
  path: ENTRY.path,
  generation: 1,
  status: 'importing',
  size: ENTRY.size,
  modified: ENTRY.modified,
  sha256: '9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08',
  paused: false,
  taskId: '019b7a3e-5c00-7000-8000-000000000030',
  progress: {
    bytesRead: 65_536,
    recordsRead: 640,
    recordsRejected: 2,
    bytesPerSecond: 1_048_576,
    recordsPerSecond: 10_240,
    remaining: '38ms',
  },
  tasks: { total: 638, succeeded: 500, dead: 0, live: 138 },
  after: null,
  duplicateOf: null,
  failures: 0,
  error: null,
  seenAt: '2026-01-01T00:00:00.000Z',
  fetchedAt: '2026-01-01T00:05:00.400Z',
  importedAt: null,
  finishedAt: null,
}

export const REJECT_EXAMPLE = {
  number: 17,
  line: 18,
  reason: '"amount" is not a decimal number',
  raw: 'Ada;transfer;ten;2026-01-01;done',
}
