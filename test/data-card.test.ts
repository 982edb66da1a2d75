/**
 * Data cards: statistics against published figures, identical images against a count by their whole content.
 */
import { existsSync } from 'node:fs'
import { expect, test } from 'vitest'
import { cardLines } from '../src/cli/data-card.ts'
import { colorsOf } from '../src/cli/terminal.ts'
import { type DataCard, dataCard } from '../src/data/card.ts'
import type { DataSet, LabelledImages } from '../src/data/data-set.ts'
import { findDuplicates } from '../src/data/duplicates.ts'
import { fashionMnist } from '../src/data/fashion-mnist.ts'
import { loadDataSet } from '../src/data/registry.ts'
import { key, randomBits } from '../src/util/random.ts'

type Image = readonly number[]

/** Images of 1 x 1 pixel, or as many as `shape` says, with their labels. */
function split(
  images: readonly Image[],
  labels: readonly number[],
  shape: readonly number[] = [1, 1, 3],
): LabelledImages {
  const count = images.length
  return {
    count,
    images: { dtype: 'uint8', shape: [count, ...shape], data: Uint8Array.from(images.flat()) },
    labels: { dtype: 'int32', shape: [count], data: Int32Array.from(labels) },
  }
}

const [a, b, c, d] = [
  [0, 0, 0],
  [10, 20, 30],
  [30, 20, 10],
  [255, 1, 0],
] as const

function handmade(): DataSet {
  const train = split([a, b, a, c, d, c, c], [0, 1, 0, 1, 0, 0, 1])
  const test = split([c, b, [1, 2, 3], [1, 2, 3]], [1, 0, 1, 0])
  const classes = ['left', 'right and long']
  return {
    name: 'own',
    title: 'Own',
    imageShape: [1, 1, 3],
    classes,
    train,
    test,
    hash: 'f00',
    source: 'here',
  }
}

test('counts, statistics and identical images of a few pixels', () => {
  const card = dataCard(handmade())
  expect(card.classes).toEqual([
    { name: 'left', train: 4, test: 2 },
    { name: 'right and long', train: 3, test: 2 },
  ])
  expect([card.publisher, card.licence, card.skipped]).toEqual([null, null, []])
  // The test split's red: 30, 10, 1, 1.
  const mean = 42 / 4
  const deviation = Math.sqrt((900 + 100 + 1 + 1) / 4 - mean ** 2)
  expect(card.test.images).toBe(4)
  expect(card.test.channels[0]).toEqual({
    mean,
    deviation: expect.closeTo(deviation, 12),
    min: 1,
    max: 30,
  })
  expect(card.train.channels.map(({ min, max }) => [min, max])).toEqual([
    [0, 255],
    [0, 20],
    [0, 30],
  ])
  expect(card.duplicates).toEqual({
    train: { groups: 2, trainImages: 5, testImages: 0, conflicting: 1 },
    test: { groups: 1, trainImages: 0, testImages: 2, conflicting: 1 },
    across: { groups: 2, trainImages: 4, testImages: 2, conflicting: 2 },
    groupCount: 4,
    groups: [
      { train: [0, 2], test: [], labels: [0] },
      { train: [1], test: [1], labels: [0, 1] },
      { train: [3, 5, 6], test: [0], labels: [0, 1] },
      { train: [], test: [2, 3], labels: [0, 1] },
    ],
  })
})

test('a hash of 32 bits is not trusted', () => {
  // Among so many different images, some 29 pairs have the same hash, whatever the hash.
  const count = 500_000
  const words = randomBits(key(1, 'images'), 2 * count)
  const data = new Uint8Array(words.buffer, words.byteOffset, words.byteLength)
  const train: LabelledImages = {
    count,
    images: { dtype: 'uint8', shape: [count, 2, 4, 1], data },
    labels: { dtype: 'int32', shape: [count], data: new Int32Array(count) },
  }
  const test = split([Array.from(data.subarray(8, 16))], [0], [2, 4, 1])
  expect(findDuplicates(train, test)).toEqual([{ train: [1], test: [0], labels: [0] }])
})

test('images that do not begin at whole words are compared as well', () => {
  const padded = Uint8Array.of(9, 1, 2, 3, 4, 1, 2, 3, 4)
  const train: LabelledImages = {
    count: 2,
    images: { dtype: 'uint8', shape: [2, 2, 2, 1], data: padded.subarray(1) },
    labels: { dtype: 'int32', shape: [2], data: Int32Array.of(0, 0) },
  }
  expect(findDuplicates(train, split([[1, 2, 3, 4]], [1], [2, 2, 1]))).toEqual([
    { train: [0, 1], test: [0], labels: [0, 1] },
  ])
})

test("Fashion-MNIST's published mean and deviation", async context => {
  const { folder } = fashionMnist.debian!
  context.skip(!existsSync(folder), `${folder} is not there: Debian's package is not installed`)
  const { train, test, licence, duplicates } = dataCard(await loadDataSet('fashion-mnist', { folder }))
  const [{ mean, deviation, min, max }] = train.channels as [DataCard['train']['channels'][0]]
  expect([(mean / 255).toFixed(4), (deviation / 255).toFixed(4), min, max]).toEqual([
    '0.2860',
    '0.3530',
    0,
    255,
  ])
  expect([train.images, test.images, licence]).toEqual([60_000, 10_000, 'MIT'])
  expect(duplicates.groups).toEqual([])
})

// Not a terminal: no colours.
const colors = colorsOf(process.stdout)

test.for([80, 120])('a card fits %i columns', async width => {
  const cards = [dataCard(handmade()), dataCard(await loadDataSet('fashion-mnist-subset'))]
  const lines = cards.map(card => cardLines(card, { width, colors }).join('\n')).join('\n\n')
  expect(lines).toMatchSnapshot()
  for (const line of lines.split('\n')) expect(line.length, line).toBeLessThanOrEqual(width)
})
