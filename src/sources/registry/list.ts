import { createHash } from 'node:crypto'
import { CONTENT_TYPES, type ContentType, type SourceSettings } from '../../task/source/source.ts'

/** A connection of a registry's list (SEEDS 1). */
export interface RegistryConnection {
  /** What the list calls it, or a digest of what it is. */
  externalId: string
  host: string
  port: number
  directory: string
  contentType: ContentType
  username: string
  /** Undefined: the list does not tell it. */
  password: string | undefined
}

export interface RegistryList {
  connections: RegistryConnection[]
  /** Sentences about entries that cannot be used; they hold nothing of what the entries hold. */
  refused: string[]
}

const MOST_CONNECTIONS = 10_000

/** Reads the list, or says why it is none, in a sentence that holds nothing of it. */
export function readRegistryList(text: string): RegistryList | string {
  let list: unknown
  try {
    list = JSON.parse(text)
  } catch {
    return 'The registry did not answer with JSON'
  }
  if (!Array.isArray(list)) return 'The registry did not answer with an array of connections'
  if (list.length > MOST_CONNECTIONS) return `The registry names more than ${MOST_CONNECTIONS} connections`
  const connections = new Map<string, RegistryConnection>()
  const refused: string[] = []
  list.forEach((entry: unknown, index) => {
    const read = readConnection(entry)
    if (typeof read === 'string') refused.push(`Connection ${index}: ${read}`)
    else if (connections.has(read.externalId)) refused.push(`Connection ${index}: is there twice`)
    else connections.set(read.externalId, read)
  })
  return { connections: [...connections.values()], refused }
}

/** Or why it cannot be used. */
function readConnection(entry: unknown): RegistryConnection | string {
  if (typeof entry !== 'object' || entry === null) return 'is not an object'
  const { id, host, port, username, password, directory, content_type } = entry as Record<string, unknown>
  if (!isText(host, 1, 253)) return '"host" must be a text'
  const number = typeof port === 'string' && /^\d{1,5}$/.test(port) ? Number(port) : (port ?? 21)
  if (!Number.isInteger(number) || Number(number) < 1 || Number(number) > 65_535) return '"port" must be a port'
  if (!isText(username ?? '', 0, 256)) return '"username" must be a text'
  if (password !== undefined && password !== null && !isText(password, 0, 1024)) return '"password" must be a text'
  if (!isText(directory ?? '', 0, 1024)) return '"directory" must be a text'
  const contentType = CONTENT_TYPES.find((type) => type === content_type)
  if (!contentType) return `"content_type" must be one of ${CONTENT_TYPES.join(', ')}`
  if (id !== undefined && id !== null && !isText(String(id), 1, 200)) return '"id" is too long'
  const what = { host, port: Number(number), directory: (directory ?? '') as string, contentType }
  const login = { username: (username ?? '') as string, password: (password ?? undefined) as string | undefined }
  return { externalId: id === undefined || id === null ? digest({ ...what, ...login }) : String(id), ...what, ...login }
}

function isText(value: unknown, min: number, max: number): value is string {
  return typeof value === 'string' && value.length >= min && value.length <= max && !value.includes('\0')
}

function digest({ host, port, username, directory, contentType }: Omit<RegistryConnection, 'externalId'>): string {
  const text = JSON.stringify([host, port, username, directory, contentType])
  return createHash('sha256').update(text).digest('hex').slice(0, 16)
}

/** Where records of registered sources go until somebody says otherwise; without a consumer they wait there. */
export const REGISTERED_RECORDS = 'ftp.records'

const EXTENSIONS: Record<ContentType, string[]> = {
  csv: ['*.csv', '*.csv.gz', '*.csv.zip'],
  json: ['*.json', '*.json.gz', '*.json.zip'],
  xml: ['*.xml', '*.xml.gz', '*.xml.zip'],
}

/** Files end in `.csv` or `.CSV`, as their server likes. */
function namesOf(type: ContentType): string[] {
  return EXTENSIONS[type].map((glob) => glob.replace(/[a-z]/g, (letter) => `[${letter}${letter.toUpperCase()}]`))
}

/** What a source is that the list has just named. */
export function newSettings(connection: RegistryConnection): SourceSettings {
  const { contentType } = connection
  return {
    ...ofList(connection),
    include: namesOf(contentType),
    format: formatOf(contentType),
    cron: '* * * * *',
    deliver: { queue: REGISTERED_RECORDS },
  }
}

/** What of a known source's settings the list decides; the rest is as somebody has set it. */
export function changedSettings(before: SourceSettings, connection: RegistryConnection): SourceSettings {
  const { contentType } = connection
  const isSameType = before.format?.type === contentType
  return {
    ...before,
    ...ofList(connection),
    ...(!isSameType && { format: formatOf(contentType), include: namesOf(contentType) }),
  }
}

function ofList({
  host,
  port,
  directory,
}: RegistryConnection): Pick<SourceSettings, 'protocol' | 'host' | 'port' | 'directory'> {
  return { protocol: 'ftp', host, port, directory }
}

function formatOf(type: ContentType): NonNullable<SourceSettings['format']> {
  // The list does not say which element a record is: any child of the root.
  return type === 'xml' ? { type, path: '/*/*' } : { type }
}
