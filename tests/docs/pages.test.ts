import { describe, expect, test } from 'bun:test'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { renderDocs } from '../../scripts/write-docs.ts'
import { anchorsOf, proseOf, ROOT, readPages } from './markdown.ts'

const pages = readPages()

describe('generated pages', () => {
  for (const [name, text] of Object.entries(renderDocs())) {
    test(`docs/${name} is what the code says (else: bun scripts/write-docs.ts)`, () => {
      expect(readFileSync(join(ROOT, 'docs', name), 'utf8')).toBe(text)
    })
  }
})

describe('links', () => {
  for (const [page, text] of pages) {
    test(`of ${page} lead somewhere`, () => {
      const broken: string[] = []
      for (const [, link = ''] of proseOf(text).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^[a-z]+:/.test(link)) continue
        const [path = '', anchor] = link.split('#', 2)
        const target = path === '' ? page : normalize(join(dirname(page), path))
        if (!existsSync(join(ROOT, target))) broken.push(link)
        else if (anchor && pages.has(target) && !anchorsOf(pages.get(target) ?? '').has(anchor)) broken.push(link)
      }
      expect(broken).toEqual([])
    })
  }

  test('lead from docs/README.md to every page of docs/, but for decisions', () => {
    const index = proseOf(pages.get('docs/README.md') ?? '')
    const unlisted = [...pages.keys()]
      .filter((page) => /^docs\/(?!README|decisions\/)/.test(page))
      .map((page) => page.slice('docs/'.length))
      .filter((page) => !index.includes(`](${page})`))
    expect(unlisted).toEqual([])
  })
})
