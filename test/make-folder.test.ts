import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { makeFolder } from '../src/data/make-folder.ts'
import { rejectionOf } from './error-of.ts'

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'fovea-folder-'))
})
afterEach(() => rm(root, { recursive: true, force: true }))

test('makes all folders above, and leaves one that exists alone', async () => {
  const path = join(root, 'a/b/c')
  await makeFolder(path)
  await makeFolder(path)
  expect((await stat(path)).isDirectory()).toBe(true)
})

test('many at once make the same one', async () => {
  for (let round = 0; round < 20; round++) {
    const path = join(root, String(round), 'x/y')
    await Promise.all(Array.from({ length: 8 }, () => makeFolder(path)))
    expect((await stat(path)).isDirectory()).toBe(true)
  }
})

test('a file in the way is named with the system’s reason', async () => {
  await writeFile(join(root, 'file'), '')
  for (const path of [join(root, 'file'), join(root, 'file/below')])
    expect((await rejectionOf(makeFolder(path))).message).toMatch(
      /: the folder cannot be made: (file already exists \(EEXIST\)|not a directory \(ENOTDIR\))$/,
    )
})

test.runIf(process.platform === 'linux')('where no folder can ever be made it ends', async () => {
  const error = await rejectionOf(makeFolder('/proc/fovea/below'))
  expect(error.message).toContain('/proc/fovea/below: the folder cannot be made: no such file or directory')
})
