import { Argument, type Command } from 'commander'
import { withExamples } from '../command.ts'
import { print } from '../output.ts'

const SHELLS = ['bash', 'zsh', 'fish'] as const
type Shell = (typeof SHELLS)[number]

/** What may stand next behind a command: its subcommands and options. */
interface Stop {
  /** The words that lead here, without `longshore`. */
  path: string
  words: { word: string; help: string }[]
}

export function completionCommand(program: Command): void {
  withExamples(
    program
      .command('completion')
      .description('Print a script that completes commands and options in your shell')
      .addArgument(new Argument('<shell>', 'your shell').choices(SHELLS))
      .action((shell: Shell) => print(completionScript(program, shell))),
    [
      'bash: now, and in every new shell',
      'longshore completion bash > ~/.local/share/bash-completion/completions/longshore',
    ],
    ['zsh, with that folder in $fpath', 'longshore completion zsh > ~/.zfunc/_longshore'],
    ['fish', 'longshore completion fish > ~/.config/fish/completions/longshore.fish'],
  )
}

/** The script for `shell`, made from the commands as they are. */
export function completionScript(program: Command, shell: Shell): string {
  const stops = stopsOf(program)
  switch (shell) {
    case 'bash':
      return bash(stops)
    case 'zsh':
      return zsh(stops)
    case 'fish':
      return fish(stops)
    default:
      return shell satisfies never
  }
}

function stopsOf(command: Command, path: readonly string[] = []): Stop[] {
  const help = command.createHelp()
  const commands = help.visibleCommands(command).filter((child) => child.name() !== 'help')
  const words = [
    ...commands.map((child) => ({ word: child.name(), help: child.summary() || child.description() })),
    ...help
      .visibleOptions(command)
      .map((option) => ({ word: option.long ?? option.short ?? '', help: option.description })),
    ...command.registeredArguments.flatMap(({ argChoices = [] }) => argChoices.map((word) => ({ word, help: '' }))),
  ]
  return [{ path: path.join(' '), words }, ...commands.flatMap((child) => stopsOf(child, [...path, child.name()]))]
}

const list = (stop: Stop) => stop.words.map(({ word }) => word).join(' ')
const quoted = (text: string) => `'${text.replaceAll("'", `'\\''`)}'`

/** (Not `path`: zsh ties that to PATH.) The words before the cursor that are no options lead to a stop; words that name none (an id) change nothing. */
const WALK = (words: string, stops: readonly Stop[]) => `  local stop="" word next
  for word in ${words}; do
    next="\${stop:+$stop }$word"
    case "$next" in
      ${stops
        .slice(1)
        .map(({ path }) => quoted(path))
        .join('|')}) stop="$next" ;;
    esac
  done`

function bash(stops: readonly Stop[]): string {
  return `# bash completion for longshore; made by: longshore completion bash
_longshore() {
${WALK(`"\${COMP_WORDS[@]:1:COMP_CWORD-1}"`, stops)}
  local words=""
  case "$stop" in
${stops.map((stop) => `    ${quoted(stop.path)}) words=${quoted(list(stop))} ;;`).join('\n')}
  esac
  COMPREPLY=($(compgen -W "$words" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _longshore longshore
`
}

function zsh(stops: readonly Stop[]): string {
  const described = ({ word, help }: Stop['words'][number]) => quoted(`${word}:${help.replaceAll(':', '\\:')}`)
  return `#compdef longshore
# zsh completion for longshore; made by: longshore completion zsh
_longshore() {
${WALK(`\${words[2,CURRENT-1]}`, stops)}
  local -a found
  case "$stop" in
${stops.map((stop) => `    ${quoted(stop.path)}) found=(${stop.words.map(described).join(' ')}) ;;`).join('\n')}
  esac
  _describe longshore found
  _files
}
if [ "$funcstack[1]" = "_longshore" ]; then
  _longshore "$@"
else
  compdef _longshore longshore
fi
`
}

function fish(stops: readonly Stop[]): string {
  const lines = stops.flatMap(({ path, words }) =>
    words.map(({ word, help }) => {
      const what = word.startsWith('--') ? `-l ${word.slice(2)}` : `-f -a ${quoted(word)}`
      return `complete -c longshore -n ${quoted(`__longshore_at ${quoted(path)}`)} ${what}${help ? ` -d ${quoted(help)}` : ''}`
    }),
  )
  return `# fish completion for longshore; made by: longshore completion fish
function __longshore_at
  set -l stop ""
  for word in (commandline -opc)[2..]
    set -l next (string trim -- "$stop $word")
    if contains -- "$next" ${stops
      .slice(1)
      .map(({ path }) => quoted(path))
      .join(' ')}
      set stop "$next"
    end
  end
  test "$stop" = "$argv[1]"
end
${lines.join('\n')}
`
}
