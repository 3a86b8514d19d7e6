import type { XmlFormat } from '../../../task/source/file-format.ts'

/** What an element becomes in JSON. Objects have no prototype, so that any name is a name like another. */
export type XmlValue = null | string | XmlValue[] | { [name: string]: XmlValue }

interface Open {
  name: string
  /** Undefined as long as the element has neither attributes nor children. */
  members: { [name: string]: XmlValue } | undefined
  text: string
}

/** Builds one record of the events inside its element. */
export class XmlTree {
  readonly #open: Open[] = []
  readonly #arrays: ReadonlySet<string>
  readonly #stripsNames: boolean
  readonly #trims: boolean
  readonly #empty: XmlValue

  constructor(format: XmlFormat) {
    this.#arrays = new Set(format.arrays)
    this.#stripsNames = format.namespaces !== 'keep'
    this.#trims = format.trim === true
    this.#empty = format.empty === 'string' ? '' : null
  }

  get depth(): number {
    return this.#open.length
  }

  /** Drops what has been built. */
  clear(): void {
    this.#open.length = 0
  }

  openElement(name: string, attributes: Record<string, string>): void {
    const element: Open = { name, members: undefined, text: '' }
    for (const attribute in attributes) {
      const value = attributes[attribute] as string
      if (!this.#stripsNames) this.#set(element, `@${attribute}`, value)
      else if (attribute !== 'xmlns' && !attribute.startsWith('xmlns:')) {
        this.#set(element, `@${localName(attribute)}`, value)
      }
    }
    this.#open.push(element)
  }

  text(text: string): void {
    const element = this.#open.at(-1)
    if (element) element.text += text
  }

  /** Gives the record when its own element is closed. */
  closeElement(): XmlValue | undefined {
    const element = this.#open.pop()
    if (!element) return undefined
    const value = this.#valueOf(element)
    const parent = this.#open.at(-1)
    if (!parent) return value
    this.#set(parent, element.name, value)
    return undefined
  }

  #valueOf({ members, text }: Open): XmlValue {
    const kept = this.#trims ? text.trim() : text
    if (!members) return kept === '' ? this.#empty : kept
    // White space between children is layout.
    if (text.trim() !== '') members['#text'] = kept
    return members
  }

  #set(element: Open, name: string, value: XmlValue): void {
    element.members ??= Object.create(null) as Record<string, XmlValue>
    const { members } = element
    if (!(name in members)) members[name] = this.#arrays.has(name) ? [value] : value
    else if (Array.isArray(members[name])) members[name].push(value)
    else members[name] = [members[name] as XmlValue, value]
  }
}

/** The name without its namespace's prefix. */
export function localName(name: string): string {
  const colon = name.indexOf(':')
  return colon < 0 ? name : name.slice(colon + 1)
}
