/**
 * The real data sets. Fashion-MNIST itself is read where Debian's package is installed; the subset is
 * shipped.
 */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { hashContent } from '../src/data/content-hash.ts'
import type { DataSet, LabelledImages } from '../src/data/data-set.ts'
import { fashionMnist } from '../src/data/fashion-mnist.ts'
import { dataSetNames, describeDataSets, loadDataSet } from '../src/data/registry.ts'
import { hashBytes } from '../src/util/hash.ts'
import { toNumbers } from '../src/util/host-tensor.ts'

const installed = fashionMnist.debian!.folder

function classCounts({ labels }: LabelledImages): number[] {
  const counts = Array<number>(10).fill(0)
  for (const label of labels.data) counts[Number(label)]!++
  return counts
}

function imageHashes({ count, images }: LabelledImages): string[] {
  const bytes = images.data as Uint8Array
  return Array.from({ length: count }, (_, i) =>
    createHash('sha256')
      .update(bytes.subarray(i * 784, (i + 1) * 784))
      .digest('hex'),
  )
}

async function loadInstalled(): Promise<DataSet> {
  const empty = await mkdtemp(join(tmpdir(), 'fovea-empty-'))
  try {
    return await loadDataSet('fashion-mnist', { cacheDir: empty, mirrors: [], apt: false })
  } finally {
    await rm(empty, { recursive: true })
  }
}

test('the shipped subset: shape, balance, content', async () => {
  const data = await loadDataSet('fashion-mnist-subset')
  expect(data.train.images.shape).toEqual([2000, 28, 28, 1])
  expect(data.test.images.shape).toEqual([500, 28, 28, 1])
  expect([data.train.images.dtype, data.train.labels.dtype]).toEqual(['uint8', 'int32'])
  expect(classCounts(data.train)).toEqual(Array(10).fill(200))
  expect(classCounts(data.test)).toEqual(Array(10).fill(50))
  expect(data.source).toBe('shipped with Fovea')
  expect(data.hash).toBe('1c635165bf04ce457245d877abf0984bb8a7418556b107e81c91088f3d4c8b31')
})

test("Fashion-MNIST from Debian's package, and the subset is a part of it", async context => {
  context.skip(!existsSync(installed), `${installed} is not there: Debian's package is not installed`)
  const whole = await loadInstalled()
  expect([whole.train.count, whole.test.count]).toEqual([60_000, 10_000])
  expect(whole.train.images.shape).toEqual([60_000, 28, 28, 1])
  expect(classCounts(whole.train)).toEqual(Array(10).fill(6000))
  expect(classCounts(whole.test)).toEqual(Array(10).fill(1000))
  expect(whole.hash).toBe('147b76ea018596b65d9f556b4b6963b904fa1da10160e3ffe44715fe1e44d223')
  // The first label is an ankle boot, as in the publisher's own description.
  expect(whole.classes[Number(whole.train.labels.data[0])]).toBe('Ankle boot')

  const subset = await loadDataSet('fashion-mnist-subset')
  for (const split of ['train', 'test'] as const) {
    const labelOf = new Map(
      imageHashes(whole[split]).map((hash, i) => [hash, Number(whole[split].labels.data[i])] as const),
    )
    const hashes = imageHashes(subset[split])
    expect(hashes.map(hash => labelOf.get(hash))).toEqual(toNumbers(subset[split].labels))
  }
})

test('the hash is over dtype, shape and values of all four parts', () => {
  const part = (values: number[]): LabelledImages => ({
    count: 1,
    images: { dtype: 'uint8', shape: [1, 1, values.length, 1], data: Uint8Array.from(values) },
    labels: { dtype: 'int32', shape: [1], data: Int32Array.of(258) },
  })
  const image = (text: string, values: number[]) => [...new TextEncoder().encode(`${text}\n`), ...values]
  const label = image('{"dtype":"int32","shape":[1]}', [2, 1, 0, 0])
  const bytes = [
    ...image('{"dtype":"uint8","shape":[1,1,2,1]}', [7, 8]),
    ...label,
    ...image('{"dtype":"uint8","shape":[1,1,1,1]}', [9]),
    ...label,
  ]
  expect(hashContent(part([7, 8]), part([9]))).toBe(hashBytes(Uint8Array.from(bytes)))
})

test('the registry describes what it loads', async () => {
  expect(dataSetNames).toEqual([
    'fashion-mnist',
    'fashion-mnist-subset',
    'mnist',
    'cifar-10',
    'cifar-100',
    'cifar-100-coarse',
  ])
  const description = describeDataSets().find(({ name }) => name === 'fashion-mnist-subset')!
  const data = await loadDataSet('fashion-mnist-subset')
  expect(description).toEqual({
    name: data.name,
    title: data.title,
    imageShape: data.imageShape,
    classCount: data.classes.length,
    train: data.train.count,
    test: data.test.count,
    source: 'Zalando Research, https://github.com/zalandoresearch/fashion-mnist',
    licence: 'MIT',
  })
})

test('MNIST reads a folder in the same format, and says that the files are not the published ones', async () => {
  const folder = join(import.meta.dirname, '../assets/fashion-mnist-subset')
  const data = await loadDataSet('mnist', { folder })
  expect(data.name).toBe('mnist')
  expect(data.source).toContain('2000 train images where the published set has 60000')
})

test('an unknown name gives the nearest', async () => {
  await expect(loadDataSet('fashion-mnits')).rejects.toThrow(
    'unknown data set "fashion-mnits"; did you mean "fashion-mnist"? known: fashion-mnist, fashion-mnist-subset, mnist, cifar-10, cifar-100, cifar-100-coarse',
  )
})
