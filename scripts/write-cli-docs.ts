/** Writes docs/cli.md from the commands' own help; a test says when it was forgotten. */
import type { Command } from 'commander'
import { examplesOf } from '../src/cli/command.ts'
import { createProgram } from '../src/cli/program.ts'

const INTRO = `# The command line

\`longshore\` is one binary: the server and its tools. Made from the commands' own help by \`bun scripts/write-cli-docs.ts\`.

- \`task\`, \`queue\`, \`exchange\`, \`schedule\`, \`source\`, \`files\` and \`bench\` speak HTTP: to \`LONGSHORE_URL\` (or \`--url\`; by default where \`HOST\` and \`PORT\` say), with the key in
  \`LONGSHORE_KEY\`. Without it the key in \`DATA_DIR/admin.key\` is taken, if the API is on this machine. The key is no flag: everybody on a machine can read
  the flags of its processes.
- \`keys\`, \`migrate\`, \`export\`, \`import\`, \`secrets\`, \`doctor\` and \`db\` use the database: that of \`DATABASE_URL\`, else the embedded one in \`DATA_DIR\`. When a node runs it, they connect and
  leave it running; when it rests, they start it for the command and stop it again (\`db url\` only tells where a running one is).
- Settings come from flags, then the environment, then \`.env\` in the working directory, then the defaults (\`.env.example\` lists them).
- Output is for people; \`--json\` writes JSON, as the API answered it where it is the API's. Progress and remarks go to standard error. Colours appear on a
  terminal only, and not with \`NO_COLOR\`.
- Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong, 3 nobody answers.

## Completion

\`\`\`
longshore completion bash > ~/.local/share/bash-completion/completions/longshore
longshore completion zsh > ~/.zfunc/_longshore        # a folder in $fpath
longshore completion fish > ~/.config/fish/completions/longshore.fish
\`\`\`
`

/** The page; the same on every terminal. */
export function renderCliDocs(): string {
  // Help needs no action: nothing is loaded or started.
  const nothing = () => Promise.reject(new Error('Help starts nothing'))
  const program = createProgram({ load: nothing, threadUrl: new URL('file:///'), packedPostgres: undefined })
  return `${INTRO}\n${sections(program, 'longshore').join('\n')}`
}

function sections(command: Command, name: string): string[] {
  command.configureHelp({ helpWidth: 110 })
  const children = command.commands.filter((child) => child.name() !== 'help')
  const examples = examplesOf(command).map(([what, line]) => `# ${what}\n${line}`)
  const text = [
    `## ${name}\n`,
    `\`\`\`text\n${command.helpInformation().trim()}\n\`\`\`\n`,
    ...(examples.length > 0 ? [`\`\`\`\n${examples.join('\n')}\n\`\`\`\n`] : []),
  ].join('\n')
  return [text, ...children.flatMap((child) => sections(child, `${name} ${child.name()}`))]
}

if (import.meta.main) await Bun.write(new URL('../docs/cli.md', import.meta.url), renderCliDocs())
