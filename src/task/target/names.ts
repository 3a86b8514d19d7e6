/*
 * How table and csv targets name what they write to.
 */

/** `[schema.]table`, each as it is called, without quotes and dots. */
const TABLE_NAME = /^([^".\p{Cc}]{1,63}\.)?[^".\p{Cc}]{1,63}$/u

/** Where the ids of tasks stand whose rows are in; a table of that name in each schema that is written. */
export const APPLIED_TABLE = 'longshore_applied'

/** The advisory lock of whoever makes a table there, or its schema: `if not exists` alone fails when two run at the same moment. */
export const MAKING_LOCK = 7_431_003

export interface TableName {
  schema: string
  table: string
}

/** What may be written, and where names without a schema belong. */
export interface TableRules {
  schema: string
  onlySchema: boolean
}

/** The table, or why it may not be written; the reason goes on from "The table". */
export function readTableName(name: string, rules: TableRules): TableName | { reason: string } {
  if (!TABLE_NAME.test(name)) return { reason: `"${name}" is none: write table or schema.table, without quotes` }
  const [first = '', second] = name.split('.')
  const schema = second === undefined ? rules.schema : first
  const table = second ?? first
  if (rules.onlySchema && schema !== rules.schema) {
    const reason = `"${name}" may not be written: without TABLE_DATABASE_URL only the schema "${rules.schema}" may`
    return { reason }
  }
  if (table === APPLIED_TABLE) return { reason: `"${name}" may not be written: Longshore keeps its own notes there` }
  return { schema, table }
}

/** Files that are made beside the one that a target names. */
const MADE_NAMES = /(\.journal(\.\d+)?|\.\d+\.[A-Za-z0-9]+|-\d{4}-\d{2}-\d{2}\.[A-Za-z0-9]+)$/

/**
 * Why a csv target may not have this path, below the folder for files; undefined when it may. Its parts are divided by `/`;
 * none begins with a dot, so none leads up or hides.
 */
export function csvPathRefusal(path: string): string | undefined {
  const parts = path.split('/')
  if (/[\\\p{Cc}]/u.test(path)) return 'must not hold backslashes and control characters'
  if (parts.some((part) => part === '' || part.startsWith('.'))) {
    return 'must lie below DATA_DIR/out: no "/" at its beginning, no part that is empty or begins with a dot'
  }
  if (!/\.[A-Za-z0-9]{1,16}$/.test(path)) return 'must have an ending such as .csv'
  return MADE_NAMES.test(path)
    ? 'is named like a file that is made by rotation or a journal: give it another name'
    : undefined
}
