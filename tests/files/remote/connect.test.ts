import { expect, test } from 'bun:test'
import { join } from 'node:path'

test('the clients of the protocols are loaded when they are first used', () => {
  const connect = join(import.meta.dir, '../../../src/files/remote/connect.ts')
  const program = `
    await import(${JSON.stringify(connect)})
    console.log(Object.keys(require.cache).filter((path) => path.includes('node_modules')).length)
    await import(${JSON.stringify(connect.replace('connect.ts', 'sftp/files.ts'))})
    console.log(Object.keys(require.cache).some((path) => path.includes('node_modules/ssh2/')))`
  const { stdout, stderr } = Bun.spawnSync([process.execPath, '-e', program])
  expect(stderr.toString()).toBe('')
  expect(stdout.toString().trim().split('\n')).toEqual(['0', 'true'])
})
