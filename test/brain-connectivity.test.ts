/** Sparse connectivity: the masks, their seeds, and what training sees of them. */
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import {
  bernoulli,
  type Connectivity,
  connectionMask,
  fixedFanIn,
  realizedDensity,
  sparseConv2d,
  sparseDense,
  topographic,
} from '../src/nn/brain/index.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Layer } from '../src/nn/layer.ts'
import { flatten } from '../src/nn/layers/core.ts'
import { sequential } from '../src/nn/model.ts'
import { hostTensor, toNumbers } from '../src/util/host-tensor.ts'
import { key } from '../src/util/random.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'

/** A dense layer's mask [inputs, units]. */
const denseMask = (connectivity: Connectivity, inputs: number, units: number, seed = 1) =>
  connectionMask('test', connectivity, { inputs, channels: inputs, units }, key(seed))

/** The inputs that a unit keeps. */
function inputsOf(mask: Float32Array, units: number, unit: number): number[] {
  return Array.from(mask.filter((_, at) => at % units === unit)).flatMap((kept, i) => (kept ? [i] : []))
}

function built(layer: Layer, shape: readonly [number, number, number], training = false) {
  const dense = layer.layer === 'sparseDense'
  const model = sequential(dense ? [flatten(), layer] : [layer, flatten()], { input: shape })
  const images = input('images', 'float32', [2, ...shape])
  return { images, ...buildModel(model, images, { training }) }
}

describe('masks', () => {
  test('fixed fan-in: exactly so many inputs for each unit, other ones for each', () => {
    const mask = denseMask(fixedFanIn({ fanIn: 7 }), 40, 30)
    const kept = Array.from({ length: 30 }, (_, unit) => inputsOf(mask, 30, unit))
    expect(kept.every(inputs => inputs.length === 7)).toBe(true)
    expect(new Set(kept.map(String)).size).toBe(30)
    // Every input is used: 30 units of 7 of 40 miss one with probability 40 (33 / 40)^30 = 0.12; this seed
    // does not.
    expect(new Set(kept.flat()).size).toBe(40)
  })

  test('Bernoulli: the number of connections is within five deviations of its mean', () => {
    const density = 0.3
    const mask = denseMask(bernoulli({ density }), 500, 400)
    const deviation = Math.sqrt((density * (1 - density)) / mask.length)
    expect(Math.abs(realizedDensity(mask) - density)).toBeLessThan(5 * deviation)
    expect(new Set(mask)).toEqual(new Set([0, 1]))
    expect(realizedDensity(denseMask(bernoulli({ density: 1 }), 10, 10))).toBe(1)
  })

  test('topographic on a line', () => {
    const mask = denseMask(topographic({ radius: 1 }), 6, 6)
    expect(inputsOf(mask, 6, 0)).toEqual([0, 1])
    expect(inputsOf(mask, 6, 3)).toEqual([2, 3, 4])
    expect(inputsOf(denseMask(topographic({ radius: 1, wrap: true }), 6, 6), 6, 0)).toEqual([0, 1, 5])
    // Three units stand at 0.5, 2.5 and 4.5.
    expect(inputsOf(denseMask(topographic({ radius: 0.5 }), 6, 3), 3, 1)).toEqual([2, 3])
  })

  test('topographic on a sheet: a disc of positions, with all their channels', () => {
    const mask = denseMask(topographic({ radius: 1, inputShape: [3, 4, 2] }), 24, 12)
    const places = (unit: number) => [...new Set(inputsOf(mask, 12, unit).map(at => Math.floor(at / 2)))]
    expect(inputsOf(mask, 12, 0)).toEqual([0, 1, 2, 3, 8, 9])
    expect(places(5)).toEqual([1, 4, 5, 6, 9])
  })

  test('topographic channels of a convolution', () => {
    const extents = { inputs: 9 * 4, channels: 4, units: 4 }
    const mask = connectionMask('test', topographic({ radius: 1 }), extents, key(1))
    const channels = (unit: number) => inputsOf(mask, 4, unit).map(row => row % 4)
    expect(inputsOf(mask, 4, 0)).toHaveLength(9 * 2)
    expect(new Set(channels(0))).toEqual(new Set([0, 1]))
    expect(new Set(channels(2))).toEqual(new Set([1, 2, 3]))
  })
})

describe('in a model', () => {
  const layers = {
    dense: sparseDense({ units: 5, connectivity: bernoulli({ density: 0.4 }) }),
    convolution: sparseConv2d({ filters: 5, kernelSize: 3, connectivity: fixedFanIn({ fanIn: 4 }) }),
  }

  test.each(Object.entries(layers))('%s: the mask is a function of the seed', (_, layer) => {
    const [mask] = built(layer, [4, 4, 3]).buffers
    expect(mask!.name).toMatch(/\/mask$/)
    expect(mask!.redraw).toBeUndefined()
    expect(mask!.initial(1)).toEqual(mask!.initial(1))
    expect(mask!.initial(1)).not.toEqual(mask!.initial(2))
  })

  test('redrawn masks differ from epoch to epoch, and are the same again for the same epoch', () => {
    const connectivity = fixedFanIn({ fanIn: 6 })
    const [mask] = built(sparseDense({ units: 8, connectivity, redraw: 'epoch' }), [4, 4, 3]).buffers
    expect(mask!.redraw).toBe('epoch')
    expect(mask!.initial(1, 0)).not.toEqual(mask!.initial(1, 1))
    expect(mask!.initial(1, 1)).toEqual(mask!.initial(1, 1))
    expect(realizedDensity(mask!.initial(1, 1))).toBe(6 / 48)
  })

  test.each(Object.entries(layers))('%s: masked weights get no gradient, the others do', async (_, layer) => {
    const { images, logits, parameters, buffers } = built(layer, [4, 4, 3], true)
    const kernel = parameters.find(({ name }) => name.endsWith('/kernel'))!
    const loss = sumAll(mul(logits, logits))
    const mask = buffers[0]!.initial(3)
    const feeds = Object.fromEntries(
      [...parameters, ...buffers].map(({ name, tensor, initial }) => [
        name,
        { dtype: 'float32' as const, shape: tensor.shape, data: initial(3) },
      ]),
    )
    const pixels = Array.from({ length: 96 }, (_, i) => Math.sin(i + 1))
    feeds.images = hostTensor('float32', images.shape, pixels) as (typeof feeds)[string]
    const [gradient] = await evaluate(gradients(loss, [kernel.tensor]), feeds)
    const values = toNumbers(gradient!)
    expect(values.map(value => Number(value !== 0))).toEqual(Array.from(mask))
  })

  test('the initializer counts the fan-in that the mask leaves', () => {
    const largest = (connectivity: Connectivity) => {
      const layer = sparseDense({ units: 200, connectivity, kernelInitializer: 'heUniform' })
      const kernel = built(layer, [10, 10, 1]).parameters[0]!
      return Math.max(...kernel.initial(1))
    }
    // heUniform's bound is sqrt(6 / fanIn); the largest of 20,000 values comes close to it.
    for (const connectivity of [bernoulli({ density: 0.25 }), fixedFanIn({ fanIn: 25 })]) {
      expect(largest(connectivity)).toBeLessThanOrEqual(Math.sqrt(6 / 25))
      expect(largest(connectivity)).toBeGreaterThan(0.99 * Math.sqrt(6 / 25))
    }
    // On a line, 100 inputs for 200 units: all but the outermost reach five or six inputs.
    const mask = denseMask(topographic({ radius: 2.6 }), 100, 200)
    const fanIn = realizedDensity(mask) * 100
    expect(largest(topographic({ radius: 2.6 }))).toBeLessThanOrEqual(Math.sqrt(6 / fanIn))
    expect(largest(topographic({ radius: 2.6 }))).toBeGreaterThan(0.99 * Math.sqrt(6 / fanIn))
  })

  test('a description survives JSON', () => {
    for (const layer of Object.values(layers)) {
      const again = JSON.parse(JSON.stringify(layer)) as Layer
      expect(again).toEqual(layer)
      expect(built(again, [4, 4, 3]).buffers[0]!.initial(5)).toEqual(
        built(layer, [4, 4, 3]).buffers[0]!.initial(5),
      )
    }
  })
})

test('errors', () => {
  const on = (layer: Layer, shape: readonly [number, number, number]) => errorOf(() => built(layer, shape))
  const half = bernoulli({ density: 0.5 })
  const disc = topographic({ radius: 1, inputShape: [3, 3, 2] })
  expect([
    errorOf(() => bernoulli({ density: 0 })),
    errorOf(() => bernoulli({ density: 1.1 })),
    errorOf(() => fixedFanIn({ fanIn: 0 })),
    errorOf(() => topographic({ radius: 0 })),
    errorOf(() => topographic({ radius: 1, inputShape: [3, 0, 1] })),
    errorOf(() => sparseDense({ units: 0, connectivity: half })),
    errorOf(() => sparseDense({ units: 1, connectivity: half, redraw: 'step' as 'epoch' })),
    errorOf(() => sparseDense({ units: 1, connectivity: disc, redraw: 'epoch' })),
    errorOf(() => sparseDense({ units: 1, connectivity: { connectivity: 'bernouli' } as never })),
    errorOf(() => sparseConv2d({ filters: 0, kernelSize: 3, connectivity: half })),
    on(sparseDense({ units: 2, connectivity: fixedFanIn({ fanIn: 13 }) }), [2, 2, 3]),
    on(sparseDense({ units: 2, connectivity: disc }), [2, 2, 3]),
    on(sparseDense({ units: 2, connectivity: topographic({ radius: 0.25 }) }), [2, 2, 2]),
    on(sparseConv2d({ filters: 2, kernelSize: 3, connectivity: fixedFanIn({ fanIn: 19 }) }), [3, 3, 2]),
    on(sparseConv2d({ filters: 2, kernelSize: 3, connectivity: disc }), [3, 3, 2]),
  ]).toMatchInlineSnapshot(`
    [
      "UsageError: bernoulli: density must be a number above 0 and at most 1, received 0",
      "UsageError: bernoulli: density must be a number above 0 and at most 1, received 1.1",
      "UsageError: fixedFanIn: fanIn must be a whole number of at least 1, received 0",
      "UsageError: topographic: radius must be a number above 0, received 0",
      "UsageError: topographic: inputShape must be a whole number of at least 1, received 0",
      "UsageError: sparseDense: units must be a whole number of at least 1, received 0",
      "UsageError: sparseDense: redraw must be "epoch" or left out, received "step"",
      "UsageError: sparseDense: topographic connectivity is not drawn, so that redraw has no meaning",
      "UsageError: unknown connectivity "bernouli"; did you mean "bernoulli"? known: bernoulli, fixedFanIn, topographic",
      "UsageError: sparseConv2d: filters must be a whole number of at least 1, received 0",
      "UsageError: sparseDense "sparseDense_1": fanIn must be at most the 12 inputs of a unit, received 13",
      "UsageError: sparseDense "sparseDense_1": inputShape [3, 3, 2] has 18 values, the layer has 12 inputs",
      "UsageError: sparseDense "sparseDense_1": radius 0.25 leaves units without inputs; the least that connects all is 0.500",
      "UsageError: sparseConv2d "sparseConv2d_1": fanIn must be at most the 18 inputs of a unit, received 19",
      "UsageError: sparseConv2d "sparseConv2d_1": inputShape is for dense layers; a convolution's channels stand on a line",
    ]
  `)
})
