import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export const ROOT = join(import.meta.dir, '../..')

/** One fenced block of a page. */
export interface Block {
  /** What stands behind the fence: language first, then flags. */
  info: string[]
  code: string
  /** Of the opening fence, from 1. */
  line: number
}

/** README.md, CONTRIBUTING.md, ARCHITECTURE.md and everything under docs/, by path from the root. */
export function readPages(): Map<string, string> {
  const docs = readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
  const paths = ['README.md', 'CONTRIBUTING.md', 'ARCHITECTURE.md', ...docs.map((path) => join('docs', path)).sort()]
  return new Map(
    paths.filter((path) => path.endsWith('.md')).map((path) => [path, readFileSync(join(ROOT, path), 'utf8')]),
  )
}

/** The fenced blocks of a page, in order; also those that are indented in a list. */
export function blocksOf(text: string): Block[] {
  const blocks: Block[] = []
  let open: { indent: number; fence: string; block: Block } | undefined
  for (const [index, line] of text.split('\n').entries()) {
    const [, space = '', fence, info = ''] = /^( *)(`{3,})(.*)$/.exec(line) ?? []
    if (open && fence?.startsWith(open.fence) && info.trim() === '') {
      blocks.push(open.block)
      open = undefined
    } else if (open) open.block.code += `${line.slice(Math.min(open.indent, line.search(/\S|$/)))}\n`
    else if (fence) {
      const block = { info: info.trim().split(/\s+/).filter(Boolean), code: '', line: index + 1 }
      open = { indent: space.length, fence, block }
    }
  }
  if (open) throw new Error(`The block of line ${open.block.line} has no end`)
  return blocks
}

/** The page without its blocks and code spans, for those who look for links. */
export function proseOf(text: string): string {
  return text.replaceAll(/^ *```[\s\S]*?^ *```$/gm, '').replaceAll(/`[^`\n]*`/g, '')
}

/** The anchors that GitHub makes of a page's headings. */
export function anchorsOf(text: string): Set<string> {
  const headings = [...text.replaceAll(/^ *```[\s\S]*?^ *```$/gm, '').matchAll(/^#{1,6} (.+)$/gm)]
  return new Set(
    headings.map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .trim()
        .replaceAll(/\s/g, '-'),
    ),
  )
}
