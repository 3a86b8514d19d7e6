import { expect, test } from 'bun:test'
import { routeTable } from '../../src/api/route-table.ts'

const table = routeTable([
  { method: 'GET', path: '/metrics' },
  { method: 'GET', path: '/api/v1/tasks/' },
  { method: 'POST', path: '/api/v1/tasks/batch' },
  { method: 'GET', path: '/api/v1/tasks/:id' },
  { method: 'POST', path: '/api/v1/tasks/:id/cancel' },
  { method: 'POST', path: '/say' },
  { method: 'GET', path: '/say/*' },
])
const routeOf = (url: string, method = 'GET') => table.routeOf(method, url).route

test('a request is named by its route, a word before a parameter', () => {
  expect(routeOf('http://h:1/metrics')).toBe('/metrics')
  expect(routeOf('http://h/api/v1/tasks?status=dead')).toBe('/api/v1/tasks')
  expect(routeOf('http://h/api/v1/tasks/')).toBe('/api/v1/tasks')
  expect(routeOf('http://h/api/v1/tasks/batch')).toBe('/api/v1/tasks/batch')
  expect(routeOf('http://h/api/v1/tasks/batch/cancel')).toBe('/api/v1/tasks/:id/cancel')
  expect(routeOf('http://h/api/v1/tasks/019b')).toBe('/api/v1/tasks/:id')
})

test('a route with a rest takes every path below it, and has one name for all', () => {
  for (const rest of ['a', 'a/b//c', '%2F', 'x/']) expect(routeOf(`http://h/say/${rest}`)).toBe('/say/*')
  expect(routeOf('http://h/say', 'POST')).toBe('/say')
  expect(routeOf('http://h/sayings')).toBe('unknown')
  expect(table.methodsOf('/say/a/b')).toEqual(['GET', 'HEAD'])
  expect(table.methodsOf('/say')).toEqual(['POST'])
})

test('what no route takes has one name, and so have methods that nobody uses', () => {
  for (const path of ['', '/', '/nothing', '/api/v1/tasks/1/2/3', '/api/v1/tasks//cancel', '/:id']) {
    expect(routeOf(`http://h${path}`)).toBe('unknown')
  }
  expect(table.routeOf('BREW', 'http://h/metrics')).toEqual({ route: '/metrics', method: 'OTHER' })
})
