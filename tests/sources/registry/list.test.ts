import { expect, test } from 'bun:test'
import { posix } from 'node:path'
import { newSettings } from '../../../src/sources/registry/list.ts'

test('a connection of a list takes the files of its type, whatever the case of their extension', () => {
  const connection = { externalId: '1', host: 'h', port: 21, username: '', password: undefined, directory: '/' }
  const takes = (contentType: 'csv' | 'xml', name: string) =>
    newSettings({ ...connection, contentType }).include?.some((glob) => posix.matchesGlob(name, glob))
  for (const name of ['rows.csv', 'REPORT.CSV', 'Rows.Csv.GZ']) expect(takes('csv', name)).toBe(true)
  for (const name of ['rows.xml', 'rows.csv.tmp', 'a.tsv', 'csv']) expect(takes('csv', name)).toBe(false)
  expect(takes('xml', 'A.XML')).toBe(true)
})
