import type { Metrics } from '../runtime/telemetry/metrics.ts'
import type { ImportLedger } from '../task/source/import.ts'

/** Counts what imports read and refuse on this node, as it is committed; a batch that is asked for twice may count twice. */
export function measuredImports(imports: ImportLedger, metrics: Pick<Metrics, 'imported'>): ImportLedger {
  /** Bytes of files in hand that are counted. */
  const counted = new Map<string, number>()
  return {
    async open(asker, file) {
      const opened = await imports.open(asker, file)
      if (opened.kind === 'read') counted.set(file, opened.order.bytesRead)
      return opened
    },
    async commit(asker, question) {
      const step = await imports.commit(asker, question)
      const { file, batch } = question
      if (step !== 'late') {
        metrics.imported({
          bytes: Math.max(0, batch.bytesRead - (counted.get(file) ?? batch.bytesRead)),
          records: batch.to - batch.from,
          rejects: batch.rejects.length,
        })
        counted.set(file, batch.bytesRead)
      }
      if (batch.end || step !== 'go-on') counted.delete(file)
      return step
    },
    fail(asker, file, error) {
      counted.delete(file)
      return imports.fail(asker, file, error)
    },
  }
}
