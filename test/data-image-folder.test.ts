/** Folders of pictures, written by sharp. */
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import sharp from 'sharp'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { UndecodablePicture } from '../src/data/picture.ts'
import { loadDataSet } from '../src/data/registry.ts'
import { UnreadableFile } from '../src/data/stored-file.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import { fovea } from './cli-process.ts'

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

const undecodable = async () => {
  await writeFile(join(root, 'train/blue/z.png'), 'no picture')
  const whole = await readFile(join(root, 'train/red/a.jpg'))
  await writeFile(join(root, 'test/red/a.jpeg'), whole.subarray(0, whole.length / 2))
}

test('pictures that cannot be decoded are skipped on request, and told', async () => {
  const before = await loadDataSet(`folder:${root}`)
  await undecodable()
  const data = await loadDataSet(`folder:${root}`, { skipUndecodable: true })
  expect(data.hash).toBe(before.hash)
  expect(data.source).toBe(`the folder ${root} (note: undecodable pictures skipped: 2)`)
  expect(data.skipped?.map(({ file }) => file)).toEqual([
    join(root, 'train/blue/z.png'),
    join(root, 'test/red/a.jpeg'),
  ])
  expect(await loadDataSet(`folder:${root}`, { skipUndecodable: true })).toEqual(data)
  expect(before.skipped).toBeUndefined()
})

test('the reason why a picture cannot be decoded is its own, whatever is wrong with others', async () => {
  const reason = 'Input buffer has corrupt header: VipsJpeg: premature end of JPEG image'
  const whole = await readFile(join(root, 'train/red/a.jpg'))
  for (let i = 10; i < 40; i++) {
    await writeFile(join(root, `train/red/${i}.jpg`), whole.subarray(0, whole.length / 2))
    await writeFile(join(root, `train/red/${i}.png`), 'no picture')
  }
  const { skipped } = await loadDataSet(`folder:${root}`, { skipUndecodable: true })
  expect(skipped?.length).toBe(60)
  const reasons = skipped!.filter(({ file }) => file.endsWith('.jpg')).map(skip => skip.reason)
  expect(reasons).toEqual(Array.from({ length: 30 }, () => reason))
})

test('the first of them is named', async () => {
  const data = await fovea(['datasets', `folder:${root}`, '--json'])
  expect(JSON.parse(data.stdout)).toMatchObject({ licence: null, skipped: [] })
  await undecodable()
  const failed = await fovea(['datasets', `folder:${root}`])
  expect(failed).toMatchObject({ code: 1, stdout: '' })
  expect(failed.stderr).toContain(`fovea: ${join(root, 'train/blue/z.png')}: not an image that can be read (`)
  const { code, stdout, stderr } = await fovea(['datasets', `folder:${root}`, '--skip-undecodable'], {
    cwd: root,
  })
  expect(code).toBe(0)
  expect(stderr).toMatch(
    /^fovea: warning: 2 pictures skipped: train\/blue\/z\.png \(.*\); test\/red\/a\.jpeg \(.*\)\n$/,
  )
  expect(stdout).toContain('2 undecodable pictures')
  expect(stdout).toMatch(/ {2}blue +1 +━+ +33\.3 % +1\n {2}red +2 +━{16} +66\.7 % +1\n/)
})

test('a class of which nothing can be decoded is an error all the same', async () => {
  await writeFile(join(root, 'test/red/b.png'), 'no picture')
  await expect(loadDataSet(`folder:${root}`, { skipUndecodable: true })).rejects.toThrow(
    new UsageError(`${join(root, 'test/red')}: expected a picture that can be read, received none`),
  )
})

test('skipping is for folders of pictures', async () => {
  await expect(loadDataSet('fashion-mnist-subset', { skipUndecodable: true })).rejects.toThrow(UsageError)
})

test.each([
  ['a.png', 'train/red/a.jpg', 'expected png from its name, received jpeg'],
  ['a.webp', 'train/red/b.png', 'expected webp from its name, received png'],
  ['a.JPEG', 'train/blue/a.webp', 'expected jpeg from its name, received webp'],
])('%s that is another kind of picture is refused', async (name, content, message) => {
  const path = join(root, 'train/red', name)
  await copyFile(join(root, content), path)
  await expect(loadDataSet(`folder:${root}`)).rejects.toThrow(new UndecodablePicture(path, message))
})

test('vector graphics by the name of a picture are not drawn', async () => {
  const path = join(root, 'train/red/a.png')
  await writeFile(path, '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
  await expect(loadDataSet(`folder:${root}`)).rejects.toThrow(
    `${path}: not an image that can be read (expected png from its name, received svg)`,
  )
})

test('a picture that the system does not give is no damaged one', async () => {
  const path = join(root, 'train/red/a.png')
  await symlink(join(root, 'train'), path)
  await expect(loadDataSet(`folder:${root}`, { skipUndecodable: true })).rejects.toThrow(
    new UnreadableFile(path, 'EISDIR'),
  )
})

test('more pixels than there is memory for are refused before any is read', async () => {
  await writeFile(join(root, 'train/red/a.jpg'), 'no picture')
  const memory = vi.spyOn(process, 'availableMemory').mockReturnValue(2 * 5 * 100 * 100 * 3 - 1)
  try {
    await expect(loadDataSet(`folder:100x100x3:${root}`)).rejects.toThrow(
      /5 pictures of 100 x 100 x 3 need 0\.0 GB of memory/,
    )
  } finally {
    memory.mockRestore()
  }
})

test('a root that is not there, or too large a picture, is an error', async () => {
  const missing = join(root, 'missing')
  await expect(loadDataSet(`folder:${missing}`)).rejects.toThrow(
    new UsageError(`data set: ${missing}: no such folder`),
  )
  await expect(loadDataSet(`folder:32x1025x3:${root}`)).rejects.toThrow(
    `expected images of at most 1024 x 1024 pixels, received 32 x 1025 from "folder:32x1025x3:${root}"`,
  )
})

test.each([
  ['one class', 'train/blue', 'train: expected at least 2 folders, one a class, received 1'],
  [
    'no training images',
    'train',
    'train: no such folder; expected train/CLASS/PICTURE and test/CLASS/PICTURE in the folder of a data set',
  ],
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
  await expect(loadDataSet(`folder:16x16:${root}`)).rejects.toThrow(
    'with 1 or 3 channels, received "folder:16x16:',
  )
  await expect(loadDataSet(`folder:32x32x4:${root}`)).rejects.toThrow(
    'with 1 or 3 channels, received "folder:32x',
  )
})

test('another folder beside its own is an error', async () => {
  await expect(loadDataSet(`folder:${root}`, { folder: tmpdir() })).rejects.toThrow(
    new UsageError(`data set folder:${root}: expected no other folder beside its own, received ${tmpdir()}`),
  )
})
