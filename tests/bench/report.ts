import { cpus, totalmem } from 'node:os'

/** A bound on a figure. */
export type Goal = { least: number } | { most: number }

/** Says one figure. */
export type Note = (what: string, value: number, unit: string, goal?: Goal) => void

export interface Report {
  part(name: string): void
  note: Note
  /** Writes bench-result.json. */
  write(): Promise<void>
}

export function createReport(): Report {
  const rows: { part: string; what: string; value: number; unit: string; goal?: Goal }[] = []
  let present = ''
  return {
    part(name) {
      present = name
      console.log(`\n${name}`)
    },
    note(what, value, unit, goal) {
      rows.push({ part: present, what, value, unit, ...(goal && { goal }) })
      console.log(`${what.padEnd(62)} ${shown(value).padStart(9)} ${unit}${goal ? `   (goal ${goalText(goal)})` : ''}`)
    },
    async write() {
      const machine = `${cpus().length} x ${cpus()[0]?.model.trim()}, ${Math.round(totalmem() / 2 ** 30)} GiB, Bun ${Bun.version}`
      const result = { at: new Date().toISOString(), machine, rows }
      await Bun.write('bench-result.json', `${JSON.stringify(result, null, 2)}\n`)
      console.log(`\n${machine}; bench-result.json is written`)
    },
  }
}

const shown = (value: number) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toFixed(2))
const goalText = (goal: Goal) =>
  'least' in goal ? `>= ${goal.least.toLocaleString('en')}` : `<= ${goal.most.toLocaleString('en')}`
