import { type Command, InvalidArgumentError, Option } from 'commander'

/** What is done, and the command line that does it. */
export type Example = readonly [what: string, line: string]

const EXAMPLES = new WeakMap<Command, readonly Example[]>()

/** Adds examples to the command's help. */
export function withExamples(command: Command, ...examples: Example[]): Command {
  EXAMPLES.set(command, examples)
  return command.addHelpText('after', () => `\nExamples:\n${examples.map(exampleText).join('\n')}\n`)
}

/** The examples of a command's help. */
export function examplesOf(command: Command): readonly Example[] {
  return EXAMPLES.get(command) ?? []
}

function exampleText([what, line]: Example): string {
  return `  # ${what}\n  $ ${line}`
}

/** Options of every command that speaks HTTP. */
export interface ApiOptions {
  url?: string
  json?: true
}

/** Adds `--url` and `--json`. */
export function apiOptions(command: Command): Command {
  return jsonOption(command).option('--url <url>', 'where Longshore listens; counts before LONGSHORE_URL')
}

export function jsonOption(command: Command): Command {
  return command.option('--json', 'write JSON, for machines')
}

/** An option that takes a whole number from `min` to `max`. */
export function wholeNumber(flags: string, description: string, min: number, max: number): Option {
  return new Option(flags, description).argParser((text) => {
    const value = /^\d{1,12}$/.test(text) ? Number(text) : Number.NaN
    if (value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
  })
}

/** Reads JSON that was given on the command line, and leaves its text as it is. */
export function jsonText(text: string): string {
  try {
    JSON.parse(text)
    return text
  } catch {
    throw new InvalidArgumentError(`It must be JSON, such as '{"n":1}' (in quotes, because of the shell).`)
  }
}

/** Collects an option that may be given several times, or with commas. */
export function collect(text: string, before: string[] = []): string[] {
  return [...before, ...text.split(',').flatMap((part) => part.trim() || [])]
}

/** `?a=1&b=2` of what is given; empty when nothing is. */
export function queryOf(parameters: Readonly<Record<string, string | number | undefined>>): string {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(parameters)) if (value !== undefined) query.set(name, String(value))
  return query.size === 0 ? '' : `?${query}`
}
