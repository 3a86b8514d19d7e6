import type { Command } from 'commander'
import { messageOf } from '../../runtime/errors.ts'
import { jsonOption, withExamples } from '../command.ts'
import type { CliDeps, Installation, Settings } from '../deps.ts'
import { Failure, mistakesOf } from '../failure.ts'
import { counted, paint, paintStatus, print, printJson } from '../output.ts'
import { type Finding, fault, ok, warning } from './doctor/finding.ts'

export function doctorCommand(program: Command, deps: CliDeps): void {
  const command = program
    .command('doctor')
    .description('Look for what is wrong, and say how to mend it; exit code 1 when there is a fault')
    .action(async ({ json }: { json?: true }) => {
      const findings = await examine(deps)
      const faults = findings.filter(({ level }) => level === 'fault').length
      const warnings = findings.filter(({ level }) => level === 'warning').length
      if (json) printJson({ faults, warnings, findings })
      else print(findings.map(linesOf).join('\n'))
      if (faults > 0) throw new Failure(`${counted(faults, 'fault')}, ${counted(warnings, 'warning')}`)
      if (!json) print(warnings > 0 ? `No faults, ${counted(warnings, 'warning')}` : 'All is well')
    })
  withExamples(
    jsonOption(command),
    ['what is wrong here?', 'longshore doctor'],
    ['the faults alone', `longshore doctor --json | jq '.findings[] | select(.level == "fault")'`],
  )
}

function linesOf({ check, level, what, remedy }: Finding): string {
  const line = `${paintStatus(level)}${' '.repeat(9 - level.length)}${paint('bold', check.padEnd(18))}${what}`
  return remedy === undefined ? line : `${line}\n${' '.repeat(27)}${paint('cyan', `-> ${remedy}`)}`
}

/** Everything that can be found out; what hinders one check is a finding of its own and not the end. */
async function examine(deps: CliDeps): Promise<Finding[]> {
  let installation: Installation
  try {
    installation = await deps.load()
  } catch (error) {
    const mistakes = mistakesOf(error)
    if (!mistakes) throw error
    return mistakes.map(({ name, message }) =>
      fault('config', message, `Change or remove ${name} in the environment or .env`),
    )
  }
  const { settings } = installation
  const { checkMachine } = await import('./doctor/machine.ts')
  return [
    ok('config', 'Every setting can be read'),
    ...(await checkMachine(settings, deps)),
    ...(await examineDatabase(settings, deps)),
  ]
}

async function examineDatabase(settings: Settings, deps: CliDeps): Promise<Finding[]> {
  const [{ openLedger }, checks, { checkWork }] = await Promise.all([
    import('../ledger.ts'),
    import('./doctor/database.ts'),
    import('./doctor/work.ts'),
  ])
  let ledger: Awaited<ReturnType<typeof openLedger>>
  try {
    ledger = await openLedger(settings, deps, { purpose: 'doctor' })
  } catch (error) {
    if (error instanceof Failure) return [warning('database', messageOf(error), 'longshore start')]
    return [fault('database', messageOf(error), 'Do what it says, then look again')]
  }
  const { database } = ledger
  try {
    const { findings, usable } = await checks.checkDatabase(database)
    if (!usable) return findings
    findings.push(
      ...(await checks.checkCare(database)),
      ...(await checks.checkAdminKey(database, settings)),
      ...(await checkWork(database)),
    )
    return findings
  } catch (error) {
    const place = settings.databaseUrl ? 'Is DATABASE_URL right, and does the server run?' : 'longshore start'
    return [fault('database', `It cannot be used: ${messageOf(error)}`, place)]
  } finally {
    await ledger.close()
  }
}
