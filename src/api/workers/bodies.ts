import type { Static, TSchema } from '@sinclair/typebox'
import { type FieldError, Problem } from '../../runtime/errors.ts'
import type { Report } from '../../task/executor.ts'
import { checkJsonText } from '../../task/json/text.ts'
import type { Claim, DeliveryClaim, Settlement } from '../../task/ledger.ts'
import { LIMITS, legible } from '../../task/limits.ts'
import type { Outcome } from '../../task/outcome.ts'
import { ClaimsSchema, OutcomesSchema, WORKER_LIMITS } from '../../task/worker-protocol.ts'
import { parseJson, readText } from '../body.ts'
import { checked, unstorable } from '../validation.ts'

/** POST /claims, as the ledger takes it. */
export type ClaimsRequest = Claim

/** POST /outcomes; what the ledger knows of an attempt is not taken from the worker. */
export interface OutcomesRequest {
  node: string
  reports: Report[]
  settlements: Pick<Settlement, 'id' | 'attempt' | 'outcome'>[]
}

export async function readClaims(request: Request): Promise<ClaimsRequest> {
  const { deliveries, ...claim } = await readBatch(ClaimsSchema, request)
  const read = deliveries.map((delivery): DeliveryClaim => {
    if (delivery.kind === 'task' || delivery.kind === 'copy') return delivery
    const { type = null, priority = 0, traceparent = null } = delivery
    return { ...delivery, type, priority, traceparent }
  })
  refuseAny(read.flatMap((delivery, index) => ('payload' in delivery ? strayErrors(delivery, index) : [])))
  return { ...claim, deliveries: read }
}

/** What else there was to a message is kept as it came: only what becomes columns must be storable. */
function strayErrors(
  { message: _, ...stray }: Extract<DeliveryClaim, { payload: string }>,
  index: number,
): FieldError[] {
  const path = `/deliveries/${index}`
  const json = checkJsonText(stray.payload)
  if (!json.ok) return [{ path: `${path}/payload`, message: `is no JSON text that can be kept: ${json.reason}` }]
  return unstorable(stray, path)
}

/** Texts for people are cut to what is kept; a result that cannot be kept is refused. */
export async function readOutcomes(request: Request): Promise<OutcomesRequest> {
  const { node, reports = [], settlements = [] } = await readBatch(OutcomesSchema, request)
  refuseAny(
    settlements.flatMap(({ outcome }, index) =>
      outcome.kind === 'succeeded' && outcome.result !== undefined ? resultErrors(outcome.result, index) : [],
    ),
  )
  return {
    node,
    settlements: settlements.map((settlement) => ({ ...settlement, outcome: legibleOutcome(settlement.outcome) })),
    reports: reports.map(({ id, attempt, progress, lines = [] }) => ({
      id,
      attempt,
      ...(progress && {
        progress: {
          ...progress,
          ...(progress.message !== undefined && { message: legible(progress.message, LIMITS.logLineBytes) }),
        },
      }),
      lines: lines.slice(-LIMITS.logLines).map((line) => legible(line, LIMITS.logLineBytes)),
    })),
  }
}

function resultErrors(result: string, index: number): FieldError[] {
  const path = `/settlements/${index}/outcome/result`
  if (Buffer.byteLength(result) > LIMITS.resultBytes) {
    return [{ path, message: `may have at most ${LIMITS.resultBytes} bytes` }]
  }
  const json = checkJsonText(result)
  return json.ok ? [] : [{ path, message: `is no JSON text that can be kept: ${json.reason}` }]
}

function legibleOutcome(outcome: Outcome): Outcome {
  const kept = { ...outcome }
  if ('error' in kept && kept.error !== undefined) kept.error = legible(kept.error, LIMITS.errorBytes)
  if ('response' in kept && kept.response) {
    kept.response = { ...kept.response, body: legible(kept.response.body, LIMITS.responseBytes) }
  }
  return kept
}

async function readBatch<S extends TSchema>(schema: S, request: Request): Promise<Static<S>> {
  return checked(schema, parseJson(await readText(request, WORKER_LIMITS.batchBytes)))
}

/** Told apart from a body of a wrong shape: of these the worker knows that only the named rows are at fault. */
function refuseAny(errors: FieldError[]): void {
  const [first] = errors
  if (first) throw new Problem('unstorable', `${first.path}: ${first.message}`, errors.slice(0, 20))
}
