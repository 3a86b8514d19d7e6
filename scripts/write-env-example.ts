/** Writes `.env.example` from the table of settings in src/config/variables.ts; a test says when it was forgotten. */
import { VARIABLES } from '../src/config/variables.ts'

export function renderEnvExample(): string {
  const entries = Object.values(VARIABLES).map(
    ({ name, description, allowed, shown }) =>
      `# ${description}\n# Allowed: ${allowed}. Default: ${shown}.\n# ${name}=\n`,
  )
  return `# Copy to .env and set what you need. What is in the environment counts before this file.\n\n${entries.join('\n')}`
}

if (import.meta.main) await Bun.write(new URL('../.env.example', import.meta.url), renderEnvExample())
