/** Folders of pictures, written by sharp. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { loadDataSet } from '../src/data/registry.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'

let root: string
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'fovea-pictures-'))
  for (const split of ['train', 'test']) {
    await picture(`${split}/red/b.png`, 'red')
    await picture(`${split}/blue/a.webp`, 'blue')
  }
  await picture('train/red/a.jpg', 'red')
  await writeFile(join(root, 'train/red/notes.txt'), 'no picture')
})
afterEach(async () => {
  await rm(root, { recursive: true })
})

/** 40 x 20 pixels of one colour. */
async function picture(path: string, background: string): Promise<void> {
  await mkdir(join(root, path, '..'), { recursive: true })
  const image = sharp({ create: { width: 40, height: 20, channels: 3, background } })
  // WebP loses colours by default.
  await (path.endsWith('.webp') ? image.webp({ lossless: true }) : image).toFile(join(root, path))
}

test('classes by name, pictures fitted in on black', async () => {
  const data = await loadDataSet(`folder:${root}`)
  expect(data.name).toBe(`folder:32x32x3:${root}`)
  expect(data.classes).toEqual(['blue', 'red'])
  expect([data.train.images.shape, data.test.images.shape]).toEqual([
    [3, 32, 32, 3],
    [2, 32, 32, 3],
  ])
  expect([...data.train.labels.data, ...data.test.labels.data]).toEqual([0, 1, 1, 0, 1])
  const pixel = (row: number) =>
    Array.from((data.test.images.data as Uint8Array).subarray((row * 32 + 16) * 3, (row * 32 + 17) * 3))
  expect([pixel(16), pixel(2), pixel(30)]).toEqual([
    [0, 0, 255],
    [0, 0, 0],
    [0, 0, 0],
  ])
  expect((await loadDataSet(data.name)).hash).toBe(data.hash)
})

test('another size, in grey', async () => {
  const data = await loadDataSet(`folder:10x20x1:${root}`)
  expect(data.imageShape).toEqual([10, 20, 1])
  expect(data.test.images.shape).toEqual([2, 10, 20, 1])
  const [blue, red] = [data.test.images.data[0], data.test.images.data[200]]
  expect(blue).toBeLessThan(red as number)
  expect(blue).toBeGreaterThan(0)
})

test('a picture that cannot be decoded is named', async () => {
  await writeFile(join(root, 'train/blue/z.png'), 'no picture')
  const failure = await loadDataSet(`folder:${root}`).catch((error: unknown) => error)
  expect(failure).toBeInstanceOf(FoveaError)
  expect((failure as Error).message).toContain(
    `${join(root, 'train/blue/z.png')}: not an image that can be read (`,
  )
})

test.each([
  ['one class', 'train/blue', 'train: expected at least 2 folders, one a class, received 1'],
  ['no training images', 'train', 'train: no such folder'],
  [
    'a class that is not tested',
    'test/red',
    'test: expected the classes of train (blue, red), received blue',
  ],
  ['an empty class', 'test/red/b.png', 'test/red: expected png, jpg or webp files, received none'],
])('%s is an error', async (_name, removed, message) => {
  await rm(join(root, removed), { recursive: true })
  await expect(loadDataSet(`folder:${root}`)).rejects.toThrow(new UsageError(`${root}/${message}`))
})

test('a wrong shape is an error', async () => {
  await expect(loadDataSet(`folder:32x32x4:${root}`)).rejects.toThrow(
    'with 1 or 3 channels, received "folder:32x',
  )
})

test('another folder beside its own is an error', async () => {
  await expect(loadDataSet(`folder:${root}`, { folder: tmpdir() })).rejects.toThrow(
    new UsageError(`data set folder:${root}: expected no other folder beside its own, received ${tmpdir()}`),
  )
})
