import { type Command, InvalidArgumentError, Option } from 'commander'
import { SCOPES, type Scope } from '../../task/scope.ts'
import { collect, jsonOption, withExamples } from '../command.ts'
import type { CliDeps } from '../deps.ts'
import { EXIT, Failure } from '../failure.ts'
import { note, oneLine, print, printJson, shortTime, table } from '../output.ts'

const PAGE = 500

export function keysCommands(program: Command, deps: CliDeps): void {
  const keys = withExamples(
    program.command('keys').description('Make, list and revoke API keys, straight in the database'),
    ['a key for a program that only submits', 'longshore keys create billing --scope submit'],
  )
  createCommand(keys, deps)

  const list = keys
    .command('list')
    .description('List keys; their secrets are not stored')
    .action(async ({ json }: { json?: true }) => {
      const all = await onDatabase(deps, async ({ db }, store) => {
        const found = await store.listKeys(db, PAGE)
        for (let page = found; page.length === PAGE; ) {
          page = await store.listKeys(db, PAGE, page.at(-1)?.id)
          found.push(...page)
        }
        return found
      })
      if (json) return printJson({ items: all })
      print(
        table(
          [
            { head: 'ID', cell: ({ id }) => id },
            { head: 'NAME', cell: ({ name }) => oneLine(name, 40) },
            { head: 'SCOPES', cell: ({ scopes }) => scopes.join(',') },
            { head: 'CREATED', cell: ({ createdAt }) => shortTime(createdAt) },
          ],
          all,
        ),
      )
    })
  withExamples(jsonOption(list), ['who may do what', 'longshore keys list'])

  const revoke = keys
    .command('revoke')
    .description('Delete a key; every node refuses it within five seconds')
    .argument('<id>', 'the id of a key')
    .action(async (id: string, { json }: { json?: true }) => {
      const deletion = await onDatabase(deps, ({ db }, store) => store.deleteKey(db, id))
      switch (deletion) {
        case 'unknown':
          throw new Failure(`There is no key "${id}"`)
        case 'last-admin':
          throw new Failure(`The key "${id}" is the last one with the scope "admin": make another first`)
        case 'deleted':
          return json ? printJson({ revoked: id }) : print(`The key "${id}" is revoked`)
        default:
          return deletion satisfies never
      }
    })
  withExamples(jsonOption(revoke), ['a key that leaked', 'longshore keys revoke 3f9c2a1b4d5e6f70'])
}

function createCommand(keys: Command, deps: CliDeps): void {
  const command = keys
    .command('create')
    .description('Make a key and show it, this once')
    .argument('<name>', 'for whom it is')
    .addOption(
      new Option('-s, --scope <scopes>', `what it may do: ${SCOPES.join(', ')}`)
        .argParser((text: string, before: string[] | undefined) => scopesOf(collect(text, before)))
        .makeOptionMandatory(),
    )
    .action(async (name: string, { scope, json }: { scope: Scope[]; json?: true }) => {
      if (name.length > 128 || name.trim() === '') throw new Failure('A name has 1 to 128 characters', EXIT.usage)
      const key = await onDatabase(deps, ({ db }, store) => store.createKey(db, name, [...new Set(scope)]))
      if (json) return printJson(key)
      print(key.key)
      note(`The key "${key.id}" for ${name} may ${scope.join(', ')}. It is shown this once.`)
    })
  withExamples(
    jsonOption(command),
    ['a key for a program that only submits', 'longshore keys create billing --scope submit'],
    ['lost the admin key? make another', 'longshore keys create me --scope admin'],
  )
}

function scopesOf(texts: string[]): string[] {
  const wrong = texts.find((text) => !(SCOPES as readonly string[]).includes(text))
  if (wrong === undefined) return texts
  throw new InvalidArgumentError(`"${wrong}" is no scope: ${SCOPES.join(', ')}.`)
}

/** Both the database and the code that speaks to it are there only when a command runs. */
async function onDatabase<T>(
  deps: CliDeps,
  work: (
    database: import('../../store/database/database.ts').Database,
    store: typeof import('../../store/keys/keys.ts'),
  ) => Promise<T>,
): Promise<T> {
  const [{ withDatabase }, { assertCurrent }, store] = await Promise.all([
    import('../ledger.ts'),
    import('../schema.ts'),
    import('../../store/keys/keys.ts'),
  ])
  return withDatabase(deps, async (database) => {
    await assertCurrent(database)
    return work(database, store)
  })
}
