/** CIFAR in all its published forms, from tiny files. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { cifar10, cifar100, cifar100Coarse } from '../src/data/cifar.ts'
import { loadCifarDataSet } from '../src/data/cifar-data-set.ts'
import { UnreadableFile } from '../src/data/stored-file.ts'
import { FoveaError, UsageError } from '../src/util/errors.ts'
import {
  archives,
  coarseLabels,
  fineLabels,
  forms,
  pixelsPerImage,
  planes,
  pythonBatch,
  tinyCifar,
  trainCount,
} from './data-cifar-fixture.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fovea-cifar-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true })
})

async function writeForm(name: string, change: Record<string, Uint8Array> = {}): Promise<string> {
  const path = join(folder, name)
  await mkdir(path)
  for (const [file, bytes] of Object.entries({ ...forms[name], ...change }))
    await writeFile(join(path, file), bytes)
  return path
}

const load = (from = folder) => loadCifarDataSet(tinyCifar, { folder: from })
const imageAt = (data: Uint8Array, i: number) => data.subarray(i * pixelsPerImage, (i + 1) * pixelsPerImage)
/** Of image `i`, from the planes. */
const expected = (i: number) =>
  Uint8Array.from(
    { length: pixelsPerImage },
    (_, at) => planes[i * pixelsPerImage + (at % 3) * 1024 + Math.floor(at / 3)]!,
  )

describe('from a folder', () => {
  test.each(Object.keys(forms))('%s, given itself or the folder that holds it', async name => {
    const path = await writeForm(name)
    const data = await load()
    expect(data.source).toBe(`the folder ${path}`)
    expect([data.train.images.shape, data.test.images.shape]).toEqual([
      [4, 32, 32, 3],
      [2, 32, 32, 3],
    ])
    expect([...data.train.labels.data, ...data.test.labels.data]).toEqual(fineLabels)
    for (let i = 0; i < 6; i++) {
      const [split, at] = i < trainCount ? [data.train, i] : [data.test, i - trainCount]
      expect(imageAt(split.images.data as Uint8Array, at)).toEqual(expected(i))
    }
    expect((await load(path)).hash).toBe(data.hash)
  })

  test('every form has the same content', async () => {
    const hashes = []
    for (const name of Object.keys(forms)) hashes.push((await load(await writeForm(name))).hash)
    for (const [name, bytes] of Object.entries(archives)) {
      const place = join(folder, `with-${name}`)
      await mkdir(place)
      await writeFile(join(place, name), bytes)
      const data = await load(place)
      expect(data.source).toBe(`the file ${join(place, name)}`)
      hashes.push(data.hash)
    }
    expect(hashes).toEqual(Array(4).fill(hashes[0]))
  })

  test('the coarse labels of the same images', async () => {
    await writeForm('cifar-100-binary')
    const coarse = { ...cifar100Coarse, train: trainCount, test: 2 }
    const data = await loadCifarDataSet(coarse, { folder })
    expect([...data.train.labels.data, ...data.test.labels.data]).toEqual(coarseLabels)
    const python = await loadCifarDataSet(coarse, { folder: await writePythonWithoutNames() })
    expect(python.hash).toBe(data.hash)
  })

  async function writePythonWithoutNames(): Promise<string> {
    const path = await writeForm('cifar-100-python')
    await rm(join(path, 'meta'))
    return path
  }

  test('an archive that is not the published one is used, and the source says so', async () => {
    await writeFile(join(folder, 'cifar-100-binary.tar.gz'), archives['cifar-100-binary.tar.gz']!)
    const other = { ...tinyCifar, binary: { ...tinyCifar.binary, archive: cifar100.binary.archive } }
    expect((await loadCifarDataSet(other, { folder })).source).toMatch(
      /\(note: not the published checksum\)$/,
    )
  })

  test('nothing, or not all of it, is an error', async () => {
    const forms =
      'cifar-100-binary.tar.gz, cifar-100-python.tar.gz, or one of them unpacked (cifar-100-binary, cifar-100-python)'
    await expect(load()).rejects.toThrow(
      new UsageError(`cifar-100: the folder ${folder} does not hold it; expected ${forms}`),
    )
    const missing = join(folder, 'missing')
    await expect(load(missing)).rejects.toThrow(new UsageError(`cifar-100: ${missing}: no such folder`))
    const path = await writeForm('cifar-100-binary')
    await rm(join(path, 'test.bin'))
    await expect(load()).rejects.toThrow(
      new UsageError(`cifar-100: the folder ${path} lacks a file: no test.bin; expected ${forms}`),
    )
  })

  const train = forms['cifar-100-binary']!['train.bin']!
  const mislabelled = Uint8Array.from(train)
  mislabelled[1 + 3074] = 100
  test.each([
    [
      'cut',
      'train.bin',
      train.subarray(0, 9000),
      'truncated: expected 12296 bytes (4 images of 2 + 3072), received 9000',
    ],
    [
      'too long',
      'train.bin',
      Buffer.concat([train, Buffer.alloc(1)]),
      'trailing bytes: expected 12296 bytes (4 images of 2 + 3072), received 12297',
    ],
    ['mislabelled', 'train.bin', mislabelled, 'label 100 at position 1 is no class: expected 0 .. 99'],
    [
      'with names in another order',
      'fine_label_names.txt',
      Buffer.from(cifar100.classes.toReversed().join('\n')),
      'class 0: expected "apple", received "worm"',
    ],
    [
      "with another data set's names",
      'fine_label_names.txt',
      Buffer.from(cifar10.classes.join('\n')),
      'expected 100 class names, received 10',
    ],
  ])('a binary file %s', async (_name, file, bytes, message) => {
    const path = await writeForm('cifar-100-binary', { [file]: bytes })
    await expect(load()).rejects.toThrow(new FoveaError(`${join(path, file)}: ${message}`))
  })

  test.each([
    ['of too few images', pythonBatch(0, 3), 'expected pixels [4, 3072], received [3, 3072]'],
    [
      'mislabelled',
      pythonBatch(0, 4, { fine: [1, 2, 200, 4] }),
      'label 200 at position 2 is no class: expected 0 .. 99',
    ],
    ['with too few labels', pythonBatch(0, 4, { fine: [1, 2, 3] }), 'expected 4 labels, received 3'],
    [
      'that is no dictionary',
      Buffer.from('\x80\x02].', 'latin1'),
      'expected a pickled dictionary, received another value',
    ],
  ])('a Python file %s', async (_name, bytes, message) => {
    const path = await writeForm('cifar-100-python', { train: bytes })
    await expect(load()).rejects.toThrow(new FoveaError(`${join(path, 'train')}: ${message}`))
  })
})

describe('without a folder', () => {
  const name = 'cifar-100-binary.tar.gz'
  const archive = archives[name]!

  test('the archive is downloaded, resumed where it was cut, checked, kept, and read from the cache', async () => {
    const ranges: (string | undefined)[] = []
    const server = createServer((request, response) => {
      if (request.method === 'HEAD' || request.url !== `/${name}`) return void response.end()
      ranges.push(request.headers.range)
      const start = Number(/\d+/.exec(request.headers.range ?? '')?.[0] ?? 0)
      const headers = { 'content-length': archive.length - start }
      if (start === 0) {
        response.writeHead(200, headers)
        response.write(archive.subarray(0, 5000), () => setTimeout(() => response.destroy(), 30))
        return
      }
      const range = `bytes ${start}-${archive.length - 1}/${archive.length}`
      response.writeHead(206, { ...headers, 'content-range': range }).end(archive.subarray(start))
    })
    await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
    try {
      const mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
      const options = { cacheDir: folder, mirrors: [mirror], idleTimeout: 500 }
      const data = await loadCifarDataSet(tinyCifar, options)
      const cache = join(folder, 'cifar-100')
      expect(data.source).toBe(`${mirror}, kept in ${cache}`)
      expect(ranges).toEqual([undefined, 'bytes=5000-'])
      expect(await readdir(cache)).toEqual([name])
      const cached = await loadCifarDataSet(tinyCifar, { ...options, mirrors: [] })
      expect([cached.source, cached.hash]).toEqual([`the cache ${cache}`, data.hash])
    } finally {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    }
  })

  test('an archive in the cache that cannot be read is left alone', async () => {
    const unreadable = join(folder, 'cifar-100', name)
    await mkdir(unreadable, { recursive: true })
    await expect(loadCifarDataSet(tinyCifar, { cacheDir: folder, mirrors: [] })).rejects.toThrow(
      new UnreadableFile(unreadable, 'EISDIR'),
    )
    expect(await readdir(join(folder, 'cifar-100'))).toEqual([name])
  })

  test('a damaged archive in the cache is not used', async () => {
    await mkdir(join(folder, 'cifar-100'))
    await writeFile(join(folder, 'cifar-100', name), archive.subarray(0, 5000))
    await expect(loadCifarDataSet(tinyCifar, { cacheDir: folder, mirrors: [] })).rejects.toThrow(
      `cifar-100 was found nowhere. Tried: the cache ${join(folder, 'cifar-100')} (${name}: wrong checksum); `,
    )
  })
})

test("the classes are the authors' own, in their order", () => {
  expect([cifar10, cifar100, cifar100Coarse].map(({ classes }) => new Set(classes).size)).toEqual([
    10, 100, 20,
  ])
  expect([cifar10.classes[3], cifar100.classes[99], cifar100Coarse.classes[9]]).toEqual([
    'cat',
    'worm',
    'large_man-made_outdoor_things',
  ])
  // The authors list both kinds by the alphabet.
  for (const { classes } of [cifar100, cifar100Coarse]) expect(classes).toEqual(classes.toSorted())
})
