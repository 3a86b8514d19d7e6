/** What a JUnit report says. */
export interface TestReport {
  passed: number
  failed: number
  /** The names of skipped and todo tests, with their file. */
  skipped: string[]
}

const CASE = /<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g
const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** Reads the JUnit XML that `bun test` writes. */
export function readTestReport(xml: string): TestReport {
  const report: TestReport = { passed: 0, failed: 0, skipped: [] }
  for (const [, attributes = '', body = ''] of xml.matchAll(CASE)) {
    if (/<(failure|error)\b/.test(body)) report.failed++
    else if (/<skipped\b/.test(body)) report.skipped.push(`${attribute(attributes, 'file')}: ${titleOf(attributes)}`)
    else report.passed++
  }
  return report
}

function titleOf(attributes: string): string {
  return [attribute(attributes, 'classname'), attribute(attributes, 'name')].filter(Boolean).join(' > ')
}

function attribute(attributes: string, name: string): string {
  const value = new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(attributes)?.[1] ?? ''
  return value.replace(/&(\w+);/g, (entity, word: string) => ENTITIES[word] ?? entity)
}
