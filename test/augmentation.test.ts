/**
 * Augmentations: their values against PyTorch and plain loops, their draws against chance, and training with
 * them.
 */
import fc from 'fast-check'
import {
  type Augmentation,
  cutout,
  type DataSet,
  dense,
  type Engine,
  flatten,
  loadDataSet,
  openEngine,
  randomBrightness,
  randomContrast,
  randomCrop,
  randomFlip,
  randomNoise,
  randomRotation,
  rescaling,
  sequential,
  sgd,
  storeTrainingImages,
  fit as train,
  trainingSpec,
} from 'fovea'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compileAugmentation } from '../src/compile/augment-program.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { batchOutward } from '../src/graph/ops/batch-axis.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import { augment } from '../src/nn/augment/augment.ts'
import { augmentationNames, checkAugmentations } from '../src/nn/augment/descriptions.ts'
import { specHash } from '../src/train/spec.ts'
import { stepKeys } from '../src/train/steps.ts'
import { type HostTensor, hostTensor, type Shape, toNumbers } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import golden from './golden/augmentation.json' with { type: 'json' }
import { valuesOf } from './reference.ts'

let engine: Engine
let data: DataSet
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
  data = await loadDataSet('fashion-mnist-subset')
  await storeTrainingImages(engine, data)
})
afterAll(() => engine.close())

/** What each image draws, in the units of the golden file, as the uniform numbers [draws, N] behind it. */
function uniforms(one: Augmentation, draws: readonly (readonly number[])[], [, height, width]: Shape) {
  const choice = (value: number, count: number) => (value + 0.5) / count
  const column = (draw: readonly number[]): number[] => {
    const [first, second] = draw as readonly [number, number]
    if (one.augmentation === 'crop') return draw.map(offset => choice(offset, 2 * one.padding + 1))
    if (one.augmentation === 'flip') return [first === 1 ? 0.2 : 0.8]
    if (one.augmentation === 'cutout') return [choice(first, height!), choice(second, width!)]
    if (one.augmentation === 'rotate') return [first / (2 * one.degrees) + 0.5]
    if (one.augmentation === 'brightness') return [first / (510 * one.range) + 0.5]
    if (one.augmentation === 'contrast') return [(first - 1) / (2 * one.range) + 0.5]
    throw new Error(`no stated draws of ${one.augmentation}`)
  }
  const columns = draws.map(column)
  return hostTensor(
    'float32',
    [columns[0]!.length, columns.length],
    columns[0]!.flatMap((_, i) => columns.map(values => values[i]!)),
  )
}

interface Step {
  readonly options: Augmentation
  readonly draws: readonly (readonly number[])[]
}

/** The images [N, H, W, C] after the steps, each with its stated draws. */
async function changed(images: HostTensor, steps: readonly Step[]): Promise<HostTensor> {
  const draw = (name: string) => {
    const { options, draws } = steps.find(
      ({ options: { augmentation } }) => name === `augment/${augmentation}`,
    )!
    return constant(uniforms(options, draws, images.shape))
  }
  const pixels = input('images', 'uint8', images.shape)
  const augmentations = steps.map(({ options }) => options)
  const [result] = await evaluate([batchOutward(augment(pixels, augmentations, draw))], { images })
  return result!
}

describe('values', () => {
  const { shape, data: pixels } = golden.images[0]!
  const images = hostTensor('uint8', shape, pixels)

  test.each(golden.cases.map(row => [row.name, row] as const))('%s: as PyTorch', async (name, row) => {
    const result = await changed(images, row.steps as unknown as Step[])
    const { shape, data } = row.output
    expectClose(valuesOf(result), { shape, data: Float64Array.from(data) }, 1e-5, name)
  })

  test('every kind but noise, which adds what it draws, has golden values', () => {
    const kinds = golden.cases.flatMap(row => row.steps.map(step => step.options.augmentation))
    expect(new Set([...kinds, 'noise'])).toEqual(new Set(augmentationNames))
  })

  test('crop, flip and cutout in any order, on images of any size, move whole pixels and nothing else', async () => {
    const sizes = fc.record({
      count: fc.integer({ min: 1, max: 4 }),
      height: fc.integer({ min: 3, max: 9 }),
      width: fc.integer({ min: 3, max: 9 }),
      channels: fc.constantFrom(1, 3),
    })
    const cases = sizes.chain(size => {
      const least = Math.min(size.height, size.width)
      return fc.record({
        size: fc.constant(size),
        padding: fc.integer({ min: 1, max: least - 1 }),
        mode: fc.constantFrom('zeros' as const, 'reflect' as const),
        hidden: fc.integer({ min: 1, max: least }),
        order: fc.shuffledSubarray(['crop', 'flip', 'cutout'] as const, { minLength: 1 }),
        unit: fc.array(fc.double({ min: 0, max: 0.999, noNaN: true }), { minLength: 20, maxLength: 20 }),
      })
    })
    await fc.assert(
      fc.asyncProperty(cases, async ({ size, padding, mode, hidden, order, unit }) => {
        const { count, height, width, channels } = size
        const all = count * height * width * channels
        const source = Array.from({ length: all }, (_, i) => 1 + ((i * 37) % 251))
        const fill = channels === 1 ? [255] : [255, 254, 253]
        const known = {
          crop: randomCrop({ padding, mode }),
          flip: randomFlip(),
          cutout: cutout({ size: hidden, fill }),
        }
        const at = (i: number, extent: number) => Math.floor(unit[i]! * extent)
        const drawn = (n: number) => ({
          crop: [at(n, 2 * padding + 1), at(4 + n, 2 * padding + 1)],
          flip: [at(8 + n, 2)],
          cutout: [at(12 + n, height), at(16 + n, width)],
        })
        const steps = order.map(name => ({
          options: known[name],
          draws: Array.from({ length: count }, (_, n) => drawn(n)[name]),
        }))
        const result = await changed(hostTensor('uint8', [count, height, width, channels], source), steps)

        // The same with loops, one image and one change after the other.
        const pixel = height * width * channels
        const expected = Array.from({ length: count }, (_, n) => {
          let image = source.slice(n * pixel, (n + 1) * pixel)
          for (const name of order) {
            const [a, b] = drawn(n)[name] as readonly number[] as readonly [number, number]
            const mirror = (i: number, extent: number) =>
              i < 0 ? -i : i >= extent ? 2 * (extent - 1) - i : i
            const before = image
            image = before.map((_, i) => {
              const [y, x, c] = [
                Math.floor(i / (width * channels)),
                Math.floor(i / channels) % width,
                i % channels,
              ]
              const read = (line: number, column: number) => before[(line * width + column) * channels + c]!
              if (name === 'flip') return a === 1 ? read(y, width - 1 - x) : read(y, x)
              if (name === 'cutout') {
                const from = Math.floor(hidden / 2)
                const within = (i: number, centre: number) => i >= centre - from && i < centre - from + hidden
                return within(y, a) && within(x, b) ? fill[c]! : read(y, x)
              }
              const [line, column] = [y + a - padding, x + b - padding]
              if (mode === 'reflect') return read(mirror(line, height), mirror(column, width))
              return line < 0 || line >= height || column < 0 || column >= width ? 0 : read(line, column)
            })
          }
          return image
        })
        expect(toNumbers(result)).toEqual(expected.flat())
      }),
      { numRuns: 60, seed: 5 },
    )
  }, 60_000)
})

/**
 * The minibatches [steps, N, H, W, C] of one image over and over, as training with that seed would see them.
 */
async function drawn(image: HostTensor, augmentation: readonly Augmentation[], count: number, steps: number) {
  const [height, width, channels] = image.shape as readonly [number, number, number]
  const compiled = compileAugmentation([height, width, channels], augmentation, count)
  const program = await engine.load(compiled.bytes)
  try {
    const { augmented } = await program.run({
      feeds: {
        steps: hostTensor('int64', [], [steps]),
        images: { ...image, shape: [1, ...image.shape] },
        labels: hostTensor('int32', [1], [0]),
        order: hostTensor('int32', [steps, count], new Array<number>(steps * count).fill(0)),
        ...stepKeys(compiled.randomKeys, 1, 0, steps),
      },
    })
    return augmented!.data as Float32Array
  } finally {
    await program.release()
  }
}

/**
 * Pearson's chi-square statistic of equally likely outcomes, as standard deviations from its mean (Wilson and
 * Hilferty).
 */
function chiSquareScore(outcomes: readonly number[], count: number): number {
  const seen = new Array<number>(count).fill(0)
  for (const outcome of outcomes) seen[outcome]! += 1
  const expected = outcomes.length / count
  const statistic = seen.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0)
  const spread = 2 / (9 * (count - 1))
  return (Math.cbrt(statistic / (count - 1)) - (1 - spread)) / Math.sqrt(spread)
}

describe('draws', () => {
  // Each pixel tells its place, from 1 on.
  const side = 9
  const places = hostTensor(
    'uint8',
    [side, side, 1],
    Array.from({ length: side * side }, (_, i) => i + 1),
  )
  const [count, steps] = [16, 1000]
  const each = (values: Float32Array, of: number) =>
    Array.from({ length: count * steps }, (_, i) => values[i * side * side + of]!)
  const centre = 4 * side + 4

  test('crops are uniform over their places: over all images, for each image over the steps, and from one image to the next', async () => {
    const values = await drawn(places, [randomCrop({ padding: 2 })], count, steps)
    const offsets = each(values, centre).map(place => {
      const [y, x] = [Math.floor((place - 1) / side) - 2, ((place - 1) % side) - 2]
      return y * 5 + x
    })
    expect(Math.abs(chiSquareScore(offsets, 25))).toBeLessThan(3)
    for (let n = 0; n < count; n++) {
      const own = offsets.filter((_, i) => i % count === n)
      expect(Math.abs(chiSquareScore(own, 25)), `image ${n}`).toBeLessThan(3.5)
    }
    const pairs = (apart: number) =>
      offsets.slice(apart).map((offset, i) => Math.floor(offset / 5) * 5 + Math.floor(offsets[i]! / 5))
    expect(Math.abs(chiSquareScore(pairs(1), 25)), 'of the image before').toBeLessThan(3.5)
    expect(Math.abs(chiSquareScore(pairs(count), 25)), 'of the step before').toBeLessThan(3.5)
  })

  test('half of the images are flipped, whatever their crop', async () => {
    const values = await drawn(places, [randomCrop({ padding: 1 }), randomFlip()], count, steps)
    const right = each(values, centre + 1)
    const outcomes = each(values, centre).map((place, i) => {
      const flipped = right[i]! < place ? 1 : 0
      return (Math.floor((place - 1) / side) - 3) * 6 + (((place - 1) % side) - 3) * 2 + flipped
    })
    expect(Math.abs(chiSquareScore(outcomes, 18))).toBeLessThan(3)
    const rare = await drawn(places, [randomFlip({ probability: 0.1 })], count, steps)
    const share = each(rare, 0).filter(place => place !== 1).length / (count * steps)
    expect(Math.abs(share - 0.1)).toBeLessThan(4 * Math.sqrt((0.1 * 0.9) / (count * steps)))
  })

  test('the centres of cutout are uniform over the pixels', async () => {
    const values = await drawn(places, [cutout({ size: 1, fill: [255] })], count, steps)
    const size = side * side
    const centres = Array.from({ length: count * steps }, (_, i) =>
      values.subarray(i * size, (i + 1) * size).indexOf(255),
    )
    expect(Math.abs(chiSquareScore(centres, size))).toBeLessThan(3)
  })

  test('angles are uniform within plus and minus the degrees', async () => {
    // Along the line right of the centre a ramp downwards tells the angle: 12 a line, 5 pixels from the
    // centre.
    const wide = 15
    const ramp = hostTensor(
      'uint8',
      [wide, wide, 1],
      Array.from({ length: wide ** 2 }, (_, i) => 12 * Math.floor(i / wide)),
    )
    const values = await drawn(ramp, [randomRotation({ degrees: 20 })], count, steps)
    const middle = (wide - 1) / 2
    const bins = Array.from({ length: count * steps }, (_, i) => {
      const value = values[i * wide ** 2 + middle * wide + middle + 5]!
      const degrees = (Math.asin((value / 12 - middle) / 5) * 180) / Math.PI
      return Math.floor(degrees + 20)
    })
    expect(Math.abs(chiSquareScore(bins, 40))).toBeLessThan(3)
  })

  test('noise is normal, brightness and contrast are uniform', async () => {
    const grey = hostTensor('uint8', [side, side, 1], new Array<number>(side * side).fill(100))
    const noise = await drawn(grey, [randomNoise({ deviation: 0.1 })], count, 100)
    const moment = (power: number) =>
      noise.reduce((sum, value) => sum + ((value - 100) / 25.5) ** power, 0) / noise.length
    // Standard errors of the moments of n normal numbers: sqrt of 1, 2, 15 and 96 over n.
    for (const [power, expected, variance] of [
      [1, 0, 1],
      [2, 1, 2],
      [3, 0, 15],
      [4, 3, 96],
    ] as const)
      expect(Math.abs(moment(power) - expected), `moment ${power}`).toBeLessThan(
        4 * Math.sqrt(variance / noise.length),
      )
    const neighbours = noise.subarray(1).reduce((sum, value, i) => sum + (value - 100) * (noise[i]! - 100), 0)
    expect(Math.abs(neighbours / noise.length / 25.5 ** 2)).toBeLessThan(4 / Math.sqrt(noise.length))

    const bright = await drawn(grey, [randomBrightness({ range: 0.2 })], count, steps)
    const tenths = each(bright, 0).map(value => Math.floor((value - 49) / 10.2))
    expect(Math.abs(chiSquareScore(tenths, 10))).toBeLessThan(3)
    const contrast = await drawn(places, [randomContrast({ range: 0.5 })], count, steps)
    // The mean of 1 .. 81 is 41, and the first pixel is 40 below it.
    const factors = each(contrast, 0).map(value => Math.floor(((41 - value) / 40 - 0.5) * 10))
    expect(Math.abs(chiSquareScore(factors, 10))).toBeLessThan(3)
  })

  test('an augmentation more changes no draw of the others', async () => {
    const alone = await drawn(places, [randomCrop({ padding: 2 })], 4, 10)
    const before = await drawn(places, [randomFlip({ probability: 0 }), randomCrop({ padding: 2 })], 4, 10)
    expect(before).toEqual(alone)
  })
})

describe('training', () => {
  const model = sequential([rescaling({ scale: 1 / 255 }), flatten(), dense({ units: 10 })], {
    name: 'linear',
    input: [28, 28, 1],
  })
  const split = { fraction: 0.25, validation: 0.1 }
  const augmentation = [randomCrop({ padding: 4 }), randomFlip(), cutout({ size: 8 })]

  test('training images are changed, validation images are not', async () => {
    // Without learning, the losses of both tell what the images were.
    const still = { split, epochs: 2, optimizer: sgd({ learningRate: 0 }) }
    const plain = await train(trainingSpec(model, data, still), data, { engine })
    const other = await train(trainingSpec(model, data, { ...still, augmentation }), data, { engine })
    const losses = (result: typeof plain) => result.history.map(record => record.validationLoss)
    expect(losses(other)).toEqual(losses(plain))
    expect(plain.history[0]!.trainLoss).toBeCloseTo(plain.history[1]!.trainLoss, 5)
    const [first, second] = other.history.map(record => record.trainLoss)
    expect(Math.abs(first! - plain.history[0]!.trainLoss)).toBeGreaterThan(1e-3)
    expect(Math.abs(first! - second!)).toBeGreaterThan(1e-4)
  })

  test('cutout fills with the mean of the training images', () => {
    const values = data.train.images.data as Uint8Array
    const mean = Math.round(values.reduce((sum, value) => sum + value, 0) / values.length)
    const spec = trainingSpec(model, data, { augmentation })
    expect(spec.augmentation).toEqual([
      { augmentation: 'crop', padding: 4, mode: 'zeros' },
      { augmentation: 'flip', probability: 0.5 },
      { augmentation: 'cutout', size: 8, fill: [mean] },
    ])
    expect(JSON.parse(JSON.stringify(spec.augmentation))).toEqual(spec.augmentation)
  })

  test('no augmentation leaves the specification and the program as they were', () => {
    const spec = trainingSpec(model, data)
    expect('augmentation' in spec).toBe(false)
    expect(specHash(trainingSpec(model, data, { augmentation: [] }))).toBe(specHash(spec))
    const hash = compileTraining(spec).hash
    expect(compileTraining({ ...spec, augmentation: [] }).hash).toBe(hash)
    expect(compileTraining(trainingSpec(model, data, { augmentation })).hash).not.toBe(hash)
  })
})

test('no layer may have the name of the random streams', () => {
  const layers = [flatten(), dense({ units: 2, name: 'augment/crop' })]
  expect(errorOf(() => sequential(layers, { input: [2, 2, 1] }))).toMatch(/^UsageError: layer name "augment/)
})

describe('what does not fit says so', () => {
  const shape = [28, 32, 3] as const
  test.each<[string, () => unknown]>([
    ['a padding of 0', () => randomCrop({ padding: 0 })],
    ['a padding as large as the image', () => checkAugmentations([randomCrop({ padding: 28 })], shape)],
    ['an unknown mode', () => randomCrop({ padding: 4, mode: 'mirror' as 'reflect' })],
    ['a probability above 1', () => randomFlip({ probability: 1.5 })],
    ['a square larger than the image', () => checkAugmentations([cutout({ size: 29 })], shape)],
    ['a fill of other channels', () => checkAugmentations([cutout({ size: 8, fill: [1] })], shape)],
    ['a fill that is no pixel', () => cutout({ size: 8, fill: [256] })],
    ['more than half a turn', () => randomRotation({ degrees: 181 })],
    ['no turn', () => randomRotation({ degrees: 0 })],
    ['noise below 0', () => randomNoise({ deviation: -0.1 })],
    ['brightness above 1', () => randomBrightness({ range: 2 })],
    ['contrast of nothing', () => randomContrast({ range: Number.NaN })],
    ['the same twice', () => checkAugmentations([randomFlip(), randomFlip()], shape)],
    [
      'an unknown kind',
      () => checkAugmentations([{ augmentation: 'mixup' } as unknown as Augmentation], shape),
    ],
    [
      'a stored description out of range',
      () => checkAugmentations([{ ...randomFlip(), probability: 2 }], shape),
    ],
    ['a mean that is not known', () => compileAugmentation([28, 28, 1], [cutout({ size: 8 })], 2)],
  ])('%s', (_, make) => {
    const error = errorOf(make)
    expect(error).toMatch(/^UsageError: /)
    expect(error).toMatchSnapshot()
  })
})
