import { expect, test } from 'bun:test'
import { execFileSync } from 'node:child_process'
import type { Command } from 'commander'
import { renderCliDocs } from '../../scripts/write-cli-docs.ts'
import { examplesOf } from '../../src/cli/command.ts'
import { completionScript } from '../../src/cli/commands/completion.ts'
import { createProgram } from '../../src/cli/program.ts'

const program = () =>
  createProgram({
    load: () => Promise.reject(new Error('unused')),
    threadUrl: new URL('file:///'),
    packedPostgres: undefined,
  })

function everyCommand(command: Command, path: string[] = []): [string, Command][] {
  return [
    [path.join(' '), command],
    ...command.commands
      .filter((child) => child.name() !== 'help')
      .flatMap((child) => everyCommand(child, [...path, child.name()])),
  ]
}

test('docs/cli.md is what the commands say: run `bun scripts/write-cli-docs.ts`', async () => {
  expect(await Bun.file(new URL('../../docs/cli.md', import.meta.url)).text()).toBe(renderCliDocs())
})

test('every command has a description and examples, and the examples parse', () => {
  for (const [path, command] of everyCommand(program())) {
    expect([path, command.description()]).toEqual([path, expect.stringMatching(/\w/)])
    expect([path, examplesOf(command).length > 0]).toEqual([path, true])
    for (const [, line] of examplesOf(command)) expect(line).toContain('longshore ')
  }
  const known = new Map(everyCommand(program()))
  const lines = [...known.values()].flatMap((command) => examplesOf(command).map(([, line]) => line))
  for (const line of lines) {
    const [, words = ''] = /longshore ([a-z]+(?: [a-z]+)?)/.exec(line) ?? []
    const found = known.get(words) ?? known.get(words.split(' ')[0] ?? '')
    expect([line, found !== undefined]).toEqual([line, true])
    const flags = [...line.matchAll(/ (--[a-z-]+)/g)].map(([, flag]) => flag)
    const foreign = ['--format', '--file']
    for (const flag of flags.filter((flag) => !line.startsWith('pg_dump') || !foreign.includes(flag ?? ''))) {
      expect([line, flag, found?.options.some(({ long }) => long === flag)]).toEqual([line, flag, true])
    }
  }
})

test('the completion script for bash completes commands, options and choices', () => {
  const script = completionScript(program(), 'bash')
  const complete = (...words: string[]) =>
    execFileSync(
      'bash',
      [
        '-c',
        `${script}\nCOMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _longshore; echo "\${COMPREPLY[*]}"`,
        'bash',
        ...words,
      ],
      { encoding: 'utf8' },
    ).trim()
  expect(complete('longshore', 'ta')).toBe('task')
  expect(complete('longshore', 'task', 're')).toBe('replay')
  expect(complete('longshore', 'task', 'list', '--pa')).toBe('--parent --payload')
  expect(complete('longshore', 'completion', 'f')).toBe('fish')
  expect(complete('longshore', 'queue', 'get', 'emails', '--js')).toBe('--json')
})

test('the completion scripts for zsh and fish name every command', () => {
  for (const shell of ['zsh', 'fish'] as const) {
    const script = completionScript(program(), shell)
    for (const [path] of everyCommand(program())) if (path) expect(script).toContain(`'${path}'`)
  }
})
