export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

export interface Family {
  type: string
  help: string
  samples: Sample[]
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/

/**
 * Reads the text format of Prometheus 0.0.4 (https://prometheus.io/docs/instrumenting/exposition_formats/) and throws at
 * whatever it does not allow: unknown lines, samples without HELP and TYPE, series told twice, and histograms whose
 * buckets do not rise to their count.
 */
export function parsePrometheus(text: string): Map<string, Family> {
  if (!text.endsWith('\n')) throw new Error('The last line does not end')
  const families = new Map<string, Family>()
  const helps = new Map<string, string>()
  const seen = new Set<string>()
  let current: string | undefined
  for (const line of text.split('\n')) {
    if (line === '') continue
    const comment = /^# (HELP|TYPE) (\S+) (.+)$/.exec(line)
    if (comment) {
      const [, what, name = '', rest = ''] = comment
      if (!NAME.test(name)) throw new Error(`A name that is none: ${line}`)
      if (what === 'HELP') {
        if (helps.has(name)) throw new Error(`A second HELP: ${line}`)
        helps.set(name, rest)
        continue
      }
      if (!['counter', 'gauge', 'histogram'].includes(rest)) throw new Error(`A type that is none: ${line}`)
      if (families.has(name)) throw new Error(`A second TYPE: ${line}`)
      families.set(name, { type: rest, help: helps.get(name) ?? '', samples: [] })
      current = name
      continue
    }
    if (current === undefined) throw new Error(`A sample before any TYPE: ${line}`)
    const sample = readSample(line)
    const family = families.get(current) as Family
    const suffixes = family.type === 'histogram' ? ['_bucket', '_sum', '_count'] : ['']
    if (!suffixes.some((suffix) => sample.name === current + suffix))
      throw new Error(`A sample of another family: ${line}`)
    const series = `${sample.name}${JSON.stringify(Object.entries(sample.labels).sort())}`
    if (seen.has(series)) throw new Error(`A series told twice: ${line}`)
    seen.add(series)
    family.samples.push(sample)
  }
  for (const [name, family] of families) {
    if (family.help === '') throw new Error(`${name} has no HELP`)
    if (family.type === 'counter' && !name.endsWith('_total'))
      throw new Error(`The counter ${name} does not end in _total`)
    if (family.type === 'histogram') checkHistogram(name, family)
  }
  return families
}

function readSample(line: string): Sample {
  const [, name = '', body = '', text = ''] = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$/.exec(line) ?? []
  if (name === '') throw new Error(`A line that is none: ${line}`)
  const labels: Record<string, string> = {}
  let rest = body
  while (rest !== '') {
    const [all, label = '', value = ''] = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)/.exec(rest) ?? []
    if (all === undefined) throw new Error(`Labels that are none: ${line}`)
    if (label in labels) throw new Error(`A label told twice: ${line}`)
    labels[label] = value.replace(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char))
    rest = rest.slice(all.length)
  }
  const value = text === '+Inf' ? Number.POSITIVE_INFINITY : Number(text)
  if (Number.isNaN(value)) throw new Error(`A value that is none: ${line}`)
  return { name, labels, value }
}

function checkHistogram(name: string, { samples }: Family): void {
  const series = Map.groupBy(samples, ({ labels: { le: _, ...labels } }) =>
    JSON.stringify(Object.entries(labels).sort()),
  )
  for (const [labels, own] of series) {
    const buckets = own.filter((sample) => sample.name === `${name}_bucket`)
    const bounds = buckets.map((bucket) =>
      bucket.labels.le === '+Inf' ? Number.POSITIVE_INFINITY : Number(bucket.labels.le),
    )
    const counts = buckets.map(({ value }) => value)
    const isRising = (values: number[]) =>
      values.every((value, index) => index === 0 || value >= (values[index - 1] as number))
    const count = own.find((sample) => sample.name === `${name}_count`)?.value
    const hasSum = own.some((sample) => sample.name === `${name}_sum`)
    if (bounds.at(-1) !== Number.POSITIVE_INFINITY || !isRising(bounds) || !isRising(counts)) {
      throw new Error(`The buckets of ${name}${labels} do not rise to +Inf`)
    }
    if (count !== counts.at(-1) || !hasSum) throw new Error(`${name}${labels} lacks its count or sum`)
  }
}

/** The sum of the samples with these labels. */
export function total(families: Map<string, Family>, name: string, labels: Record<string, string> = {}): number {
  const family = [...families].find(([known]) => name === known || name.startsWith(`${known}_`))?.[1]
  if (!family) throw new Error(`There is no metric ${name}`)
  return family.samples
    .filter(
      (sample) => sample.name === name && Object.entries(labels).every(([key, value]) => sample.labels[key] === value),
    )
    .reduce((sum, { value }) => sum + value, 0)
}
