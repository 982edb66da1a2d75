import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { minibatchOrder, type SplitOptions, splitTraining } from '../src/data/split.ts'
import { UsageError } from '../src/util/errors.ts'
import { type HostTensor, hostTensor } from '../src/util/host-tensor.ts'
import { key, permutation } from '../src/util/random.ts'

/** Labels with `counts[c]` images of class c, in a fixed random order. */
function labelsOf(counts: readonly number[], seed = 1): HostTensor {
  const sorted = counts.flatMap((count, c) => Array<number>(count).fill(c))
  const order = permutation(key(seed, 'labels'), sorted.length)
  return hostTensor(
    'int32',
    [sorted.length],
    Array.from(order, i => sorted[i]!),
  )
}

function countsOf(labels: HostTensor, indices: Int32Array, classCount: number): number[] {
  const counts = Array<number>(classCount).fill(0)
  for (const index of indices) counts[Number(labels.data[index])]!++
  return counts
}

const classCounts = fc.array(fc.integer({ min: 30, max: 120 }), { minLength: 1, maxLength: 6 })
const seeds = fc.nat({ max: 2 ** 31 })

describe('splitting the training images', () => {
  test('disjoint, of exact size, and each class within one image of its share', () => {
    fc.assert(
      fc.property(
        classCounts,
        fc.double({ min: 0.2, max: 1, noNaN: true }),
        fc.double({ min: 0.1, max: 0.5, noNaN: true }),
        seeds,
        (counts, fraction, validation, seed) => {
          const labels = labelsOf(counts)
          const n = labels.data.length
          const split = splitTraining(labels, counts.length, { fraction, validation, seed })
          const v = Math.round(validation * n)
          const t = Math.round(fraction * (n - v))
          expect([split.validation.length, split.train.length]).toEqual([v, t])
          const all = [...split.train, ...split.validation]
          expect(new Set(all).size).toBe(all.length)
          expect(all.every(index => index >= 0 && index < n)).toBe(true)
          for (const part of [split.train, split.validation]) expect(part).toEqual(part.slice().sort())
          const validated = countsOf(labels, split.validation, counts.length)
          const trained = countsOf(labels, split.train, counts.length)
          counts.forEach((count, c) => {
            expect(Math.abs(validated[c]! - (v * count) / n)).toBeLessThan(1)
            expect(Math.abs(trained[c]! - (t * (count - validated[c]!)) / (n - v))).toBeLessThan(1)
          })
        },
      ),
      { numRuns: 60 },
    )
  })

  test('a function of the seed; another seed draws others', () => {
    fc.assert(
      fc.property(classCounts, seeds, (counts, seed) => {
        const labels = labelsOf(counts)
        const options = { fraction: 0.5, validation: 0.2, seed }
        const split = splitTraining(labels, counts.length, options)
        expect(splitTraining(labels, counts.length, options)).toEqual(split)
        expect(splitTraining(labels, counts.length, { ...options, seed: seed + 1 })).not.toEqual(split)
      }),
      { numRuns: 30 },
    )
  })

  test('the validation images do not depend on the fraction', () => {
    const labels = labelsOf([50, 60, 70])
    const validations = [0.25, 0.5, 1].map(
      fraction => splitTraining(labels, 3, { fraction, seed: 7 }).validation,
    )
    expect(validations[0]).toHaveLength(18)
    expect(validations[1]).toEqual(validations[0])
    expect(validations[2]).toEqual(validations[0])
  })

  test('by default a tenth validates; with 0 nothing does, and all the rest trains', () => {
    const labels = labelsOf([100, 100])
    const split = splitTraining(labels, 2, { seed: 0 })
    expect([split.train.length, split.validation.length]).toEqual([180, 20])
    const whole = splitTraining(labels, 2, { validation: 0, seed: 0 })
    expect(whole.train).toEqual(Int32Array.from({ length: 200 }, (_, i) => i))
    expect(whole.validation).toHaveLength(0)
  })

  test('a number of images, the first ones of the file, as Korssjoen 2020 takes', () => {
    const labels = labelsOf([300, 300])
    const split = splitTraining(labels, 2, { validation: 50, validationFrom: 'first', seed: 3 })
    expect(split.validation).toEqual(Int32Array.from({ length: 50 }, (_, i) => i))
    expect(split.train).toEqual(Int32Array.from({ length: 550 }, (_, i) => 50 + i))
  })

  test('random validation is not stratified', () => {
    const labels = labelsOf([200, 200])
    const unequal = [1, 2, 3, 4, 5].filter(seed => {
      const split = splitTraining(labels, 2, { validation: 40, validationFrom: 'random', seed })
      expect(split.validation).toHaveLength(40)
      return countsOf(labels, split.validation, 2)[0] !== 20
    })
    expect(unequal.length).toBeGreaterThan(0)
  })

  test.each<[string, Partial<SplitOptions>, string]>([
    ['fraction 0', { fraction: 0 }, 'split: fraction must be above 0 and at most 1, received 0'],
    ['fraction above 1', { fraction: 1.5 }, 'split: fraction must be above 0 and at most 1, received 1.5'],
    ['fraction NaN', { fraction: NaN }, 'split: fraction must be above 0 and at most 1, received NaN'],
    [
      'negative validation',
      { validation: -0.1 },
      'split: validation must be a number at least 0, received -0.1',
    ],
    [
      'broken number',
      { validation: 1.5 },
      'split: validation, as a number of images, must be a whole number of at least 1, received 1.5',
    ],
    ['too many', { validation: 20 }, 'split: 20 validation images of 20 leave nothing to train on'],
    [
      'too few',
      { validation: 0.01 },
      'split: validation 0.01 of 20 training images leaves no validation image',
    ],
    [
      'a class without validation',
      { validation: 1 },
      'split: expected an image of each of the 2 classes in the validation split, received none of class 1 (1 in all): ask for a larger validation',
    ],
    [
      'a class without training',
      { validation: 0, fraction: 0.05 },
      'split: expected an image of each of the 2 classes in the train split, received none of class 1 (1 in all): ask for a larger fraction',
    ],
    ['seed', { seed: 0.5 }, 'split: seed must be a whole number of at least 0, received 0.5'],
    [
      'a wrong word',
      { validationFrom: 'last' as 'first' },
      'split: validationFrom must be stratified, random or first, received last',
    ],
  ])('refuses: %s', (_name, options, message) => {
    expect(() => splitTraining(labelsOf([10, 10]), 2, { seed: 0, ...options })).toThrow(
      new UsageError(message),
    )
  })

  test('refuses labels that are none', () => {
    expect(() => splitTraining(labelsOf([10, 10, 10]), 2, { seed: 0 })).toThrow(
      /label 2 at position \d+ is no class: expected 0 \.\. 1/,
    )
    expect(() => splitTraining(hostTensor('uint8', [2, 2], [0, 1, 0, 1]), 2, { seed: 0 })).toThrow(
      'split: labels must be int32 [count], received uint8 [2, 2]',
    )
  })
})

describe('minibatch order', () => {
  test('a permutation of the indices, the same for the same seed and epoch, another for another', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(fc.nat({ max: 60_000 }), { minLength: 20, maxLength: 300 }),
        seeds,
        fc.nat({ max: 100 }),
        (values, seed, epoch) => {
          const indices = Int32Array.from(values)
          const order = minibatchOrder(indices, seed, epoch)
          expect(indices).toEqual(Int32Array.from(values))
          expect(order.slice().sort()).toEqual(indices.slice().sort())
          expect(minibatchOrder(indices, seed, epoch)).toEqual(order)
          expect(minibatchOrder(indices, seed, epoch + 1)).not.toEqual(order)
          expect(minibatchOrder(indices, seed + 1, epoch)).not.toEqual(order)
        },
      ),
      { numRuns: 60 },
    )
  })
})
