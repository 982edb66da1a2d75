/** Brain-inspired mechanisms, computed by ONNX Runtime: outputs, gradients and buffers against PyTorch's. */
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { batchOutward } from '../src/graph/ops/batch-axis.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import * as brain from '../src/nn/brain/index.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Layer } from '../src/nn/layer.ts'
import { flatten } from '../src/nn/layers/core.ts'
import { layerKinds } from '../src/nn/layers.ts'
import { sequential } from '../src/nn/model.ts'
import { type HostTensor, hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import attention from './golden/attention.json' with { type: 'json' }
import golden from './golden/brain.json' with { type: 'json' }
import layersGolden from './golden/layers.json' with { type: 'json' }

interface Values {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}
interface Named extends Values {
  readonly name: string
}
interface Row {
  readonly name: string
  readonly layer: string
  readonly config: object
  readonly training: boolean
  readonly input: Values
  readonly weights: readonly Named[]
  readonly buffers: readonly Named[]
  readonly output: Values
  readonly cotangent: Values
  readonly inputGradient: Values
  readonly weightGradients: readonly Named[]
  readonly updatedBuffers?: readonly Named[] | undefined
}

const cases: readonly Row[] = [...golden.cases, ...attention.cases]

const exported = new Map<string, unknown>(Object.entries(brain))

/** The golden rows' layer kinds and options are data, as a description is. */
function described(kind: string, config: object): Layer {
  const make = exported.get(kind) as (options: object) => Layer
  return make({ ...config, name: 'tested' })
}

/** A model of this one layer, on [N, H, W, C] or [N, F]. */
function modelAround(layer: Layer, shape: readonly number[]) {
  const maps = shape.length === 4
  const [h, w, c] = maps ? shape.slice(1) : [1, 1, shape[1]]
  return sequential(maps ? [layer, flatten()] : [flatten(), layer], { input: [h!, w!, c!] })
}

/**
 * Output, gradients of sum(output * cotangent) by name (`input` and the parameters), and buffers after the
 * step.
 */
async function run(
  layer: Layer,
  given: {
    readonly input: Values
    readonly cotangent: Values
    readonly weights: readonly Named[]
    readonly buffers: readonly Named[]
    readonly training: boolean
  },
) {
  const { shape, data } = given.input
  const model = modelAround(layer, shape)
  const images = input('images', 'float32', [shape[0]!, ...model.input])
  const { outputs, parameters, buffers } = buildModel(model, images, { training: given.training })
  const y = outputs.get('tested')!
  const output = y.shape.length === 4 ? batchOutward(y) : y
  const loss = sumAll(mul(output, input('cotangent', 'float32', output.shape)))
  const of = [images, ...parameters.map(parameter => parameter.tensor)]
  const changed = buffers.filter(buffer => buffer.next)
  const feeds: Record<string, HostTensor> = {
    images: hostTensor('float32', images.shape, data),
    cotangent: hostTensor('float32', given.cotangent.shape, given.cotangent.data),
  }
  for (const { name, shape, data } of [...given.weights, ...given.buffers])
    feeds[`tested/${name}`] = hostTensor('float32', shape, data)
  const results = await evaluate(
    [output, ...gradients(loss, of), ...changed.map(buffer => buffer.next!)],
    feeds,
  )
  const names = ['input', ...parameters.map(({ name }) => name.replace('tested/', ''))]
  return {
    output: results[0]!,
    gradients: new Map(names.map((name, i) => [name, results[i + 1]!])),
    buffers: new Map(
      changed.map(({ name }, i) => [name.replace('tested/', ''), results[of.length + 1 + i]!]),
    ),
  }
}

/** Equal within float32's rounding of the largest value. */
function expectClose(actual: HostTensor | undefined, expected: Values, tolerance = 2e-5) {
  expect(actual && sizeOf(actual.shape)).toBe(sizeOf(expected.shape))
  const scale = Math.max(1, ...expected.data.map(Math.abs))
  const values = toNumbers(actual!)
  const worst = Math.max(...expected.data.map((value, i) => Math.abs(value - values[i]!)))
  expect(worst / scale).toBeLessThan(tolerance)
}

describe('golden values', () => {
  test.each(cases)('$name', async row => {
    const result = await run(described(row.layer, row.config), row)
    expect(result.output.shape).toEqual(row.output.shape)
    expectClose(result.output, row.output)
    expectClose(result.gradients.get('input'), row.inputGradient)
    expect([...result.gradients.keys()].sort()).toEqual(
      ['input', ...row.weightGradients.map(({ name }) => name)].sort(),
    )
    for (const gradient of row.weightGradients) expectClose(result.gradients.get(gradient.name), gradient)
    expect(result.buffers.size).toBe(row.updatedBuffers?.length ?? 0)
    for (const buffer of row.updatedBuffers ?? []) expectClose(result.buffers.get(buffer.name), buffer)
  })

  test('every mechanism has a row', () => {
    const mechanisms = layerKinds.filter(kind => exported.has(kind))
    expect([...new Set(cases.map(row => row.layer))].sort()).toEqual(mechanisms.sort())
  })

  test('every mechanism that can learn has a row fixed and a row learned', () => {
    const learning = golden.cases.filter(row => 'learned' in described(row.layer, row.config))
    for (const kind of new Set(learning.map(row => row.layer))) {
      const rows = learning.filter(row => row.layer === kind)
      expect([...new Set(rows.map(row => 'learned' in row.config))].sort(), kind).toEqual([false, true])
    }
  })
})

describe('localResponseNormalization', () => {
  test.each(layersGolden.localResponseNormalization)('as $name', async ({ source, config, ...row }) => {
    const { alpha, beta } = config
    const layer = brain.localResponseNormalization(
      source.startsWith('torch')
        ? { name: 'tested', size: config.size!, k: config.k!, alpha, beta, alphaDividedBy: 'size' }
        : { name: 'tested', size: 2 * config.depthRadius! + 1, k: config.bias!, alpha, beta },
    )
    const result = await run(layer, { ...row, weights: [], buffers: [], training: false })
    expectClose(result.output, row.output)
    expectClose(result.gradients.get('input'), row.inputGradient)
  })
})

describe('properties', () => {
  const none = { weights: [], buffers: [], training: false }
  const ones = (...shape: number[]) => ({ shape, data: new Array<number>(sizeOf(shape)).fill(1) })

  test('lateral inhibition at strength 1 suppresses the inside of a constant map', async () => {
    const x = ones(1, 7, 7, 1)
    const layer = brain.lateralInhibition({ name: 'tested', strength: 1 })
    const y = toNumbers((await run(layer, { ...none, input: x, cotangent: x })).output)
    expect(y[3 * 7 + 3]).toBeCloseTo(0, 5)
    expect(y[0]).toBeGreaterThan(0.4)
  })

  test('a difference of Gaussians leaves the inside of a constant map as it is', async () => {
    const x = ones(1, 7, 7, 1)
    const layer = brain.differenceOfGaussians({ name: 'tested', strength: 1, radius: 3 })
    const y = toNumbers((await run(layer, { ...none, input: x, cotangent: x })).output)
    expect(y[3 * 7 + 3]).toBeCloseTo(1, 5)
  })

  test('the Mexican hat excites near channels and inhibits far ones', async () => {
    const x = { shape: [1, 16], data: Array.from({ length: 16 }, (_, i) => Number(i === 8)) }
    const layer = brain.mexicanHat({ name: 'tested', mode: 'one-shot' })
    const y = toNumbers((await run(layer, { ...none, input: x, cotangent: x })).output)
    expect(y[8]).toBeCloseTo(1, 6)
    expect(y[9]).toBeGreaterThan(0)
    expect(y[9]).toBeCloseTo(y[7]!, 6)
    expect(y[11]).toBeCloseTo(0, 6)
    expect(y[12]).toBeLessThan(0)
  })

  test('k-winners-take-all lets all of a tie win', async () => {
    const x = { shape: [1, 5], data: [3, 2, 2, 1, 0] }
    const layer = brain.kWinnersTakeAll({ name: 'tested', k: 2 })
    const buffers = [{ name: 'dutyCycle', ...ones(5) }]
    const { output, gradients } = await run(layer, { ...none, buffers, input: x, cotangent: ones(1, 5) })
    expect(toNumbers(output)).toEqual([3, 2, 2, 0, 0])
    expect(toNumbers(gradients.get('input')!)).toEqual([1, 1, 1, 0, 0])
  })

  test('boosting lets a unit that seldom won win against a stronger one', async () => {
    const x = { shape: [1, 2], data: [1, 0.75] }
    const buffers = [{ name: 'dutyCycle', shape: [2], data: [1, 0] }]
    const winners = async (boostStrength: number) => {
      const layer = brain.kWinnersTakeAll({ name: 'tested', k: 1, boostStrength })
      return toNumbers((await run(layer, { ...none, buffers, input: x, cotangent: ones(1, 2) })).output)
    }
    expect(await winners(0)).toEqual([1, 0])
    expect(await winners(1)).toEqual([0, 0.75])
  })
})

test('errors', () => {
  const on = (layer: Layer, ...shape: number[]) =>
    errorOf(() => {
      const model = modelAround(layer, [2, ...shape])
      buildModel(model, input('images', 'float32', [2, ...model.input]), { training: false })
    })
  expect([
    errorOf(() => brain.lateralInhibition({ radius: 0 })),
    errorOf(() => brain.lateralInhibition({ sigma: 0 })),
    errorOf(() => brain.lateralInhibition({ strength: -1 })),
    errorOf(() => brain.lateralInhibition({ learned: 1 as unknown as boolean })),
    errorOf(() => brain.differenceOfGaussians({ sigma1: 0 })),
    errorOf(() => brain.differenceOfGaussians({ sigma1: 2, sigma2: 2 })),
    errorOf(() => brain.differenceOfGaussians({ radius: 1.5 })),
    errorOf(() => brain.differenceOfGaussians({ strength: Number.NaN })),
    errorOf(() => brain.mexicanHat({ width: -1 })),
    errorOf(() => brain.mexicanHat({ strength: -1 })),
    errorOf(() => brain.mexicanHat({ mode: 'twice' as 'one-shot' })),
    errorOf(() => brain.divisiveNormalization({ over: 'time' as 'space' })),
    errorOf(() => brain.divisiveNormalization({ radius: 0 })),
    errorOf(() => brain.divisiveNormalization({ exponent: 0.5 })),
    errorOf(() => brain.divisiveNormalization({ sigma: 0 })),
    errorOf(() => brain.divisiveNormalization({ gamma: 0 })),
    errorOf(() => brain.divisiveNormalization({ strength: -1 })),
    errorOf(() => brain.generalizedDivisiveNormalization({ beta: 0 })),
    errorOf(() => brain.generalizedDivisiveNormalization({ gamma: -1 })),
    errorOf(() => brain.localResponseNormalization({ size: 0 })),
    errorOf(() => brain.localResponseNormalization({ k: 0 })),
    errorOf(() => brain.localResponseNormalization({ alpha: -1 })),
    errorOf(() => brain.localResponseNormalization({ beta: -1 })),
    errorOf(() => brain.localResponseNormalization({ alphaDividedBy: 'n' as 'size' })),
    errorOf(() => brain.kWinnersTakeAll({})),
    errorOf(() => brain.kWinnersTakeAll({ k: 1, density: 0.5 })),
    errorOf(() => brain.kWinnersTakeAll({ density: 0 })),
    errorOf(() => brain.kWinnersTakeAll({ k: 0 })),
    errorOf(() => brain.kWinnersTakeAll({ k: 1, over: 'units' as 'all' })),
    errorOf(() => brain.kWinnersTakeAll({ k: 1, boostStrength: -1 })),
    errorOf(() => brain.kWinnersTakeAll({ k: 1, dutyCyclePeriod: 0 })),
    errorOf(() => brain.pushPullConv2d({ filters: 0, kernelSize: 3 })),
    errorOf(() => brain.pushPullConv2d({ filters: 1, kernelSize: 4 })),
    errorOf(() => brain.pushPullConv2d({ filters: 1, kernelSize: 3, scale: 0.5 })),
    errorOf(() => brain.pushPullConv2d({ filters: 1, kernelSize: 3, strength: -1 })),
    on(brain.lateralInhibition(), 5),
    on(brain.differenceOfGaussians(), 5),
    on(brain.pushPullConv2d({ filters: 1, kernelSize: 3 }), 5),
    on(brain.divisiveNormalization({ over: 'space' }), 5),
    on(brain.mexicanHat(), 4, 4, 2),
    on(brain.mexicanHat({ strength: 2 }), 16),
    on(brain.kWinnersTakeAll({ k: 6 }), 2, 2, 5),
  ]).toMatchInlineSnapshot(`
    [
      "UsageError: lateralInhibition: radius must be a whole number of at least 1, received 0",
      "UsageError: lateralInhibition: sigma must be a number above 0, received 0",
      "UsageError: lateralInhibition: strength must be a number at least 0, received -1",
      "UsageError: lateralInhibition: learned must be true or false, received 1",
      "UsageError: differenceOfGaussians: sigma1 must be a number above 0, received 0",
      "UsageError: differenceOfGaussians: sigma2 must be above sigma1 2, received 2",
      "UsageError: differenceOfGaussians: radius must be a whole number of at least 1, received 1.5",
      "UsageError: differenceOfGaussians: strength must be a number at least 0, received NaN",
      "UsageError: mexicanHat: width must be a number above 0, received -1",
      "UsageError: mexicanHat: strength must be a number at least 0, received -1",
      "UsageError: mexicanHat: mode must be "one-shot" or "equilibrium", received "twice"",
      "UsageError: divisiveNormalization: over must be "channels" or "space", received "time"",
      "UsageError: divisiveNormalization: radius must be a whole number of at least 1, received 0",
      "UsageError: divisiveNormalization: exponent must be a number at least 1, received 0.5",
      "UsageError: divisiveNormalization: sigma must be a number above 0, received 0",
      "UsageError: divisiveNormalization: gamma must be a number above 0, received 0",
      "UsageError: divisiveNormalization: strength must be a number at least 0, received -1",
      "UsageError: generalizedDivisiveNormalization: beta must be a number at least 0.000001, received 0",
      "UsageError: generalizedDivisiveNormalization: gamma must be a number at least 0, received -1",
      "UsageError: localResponseNormalization: size must be a whole number of at least 1, received 0",
      "UsageError: localResponseNormalization: k must be a number above 0, received 0",
      "UsageError: localResponseNormalization: alpha must be a number at least 0, received -1",
      "UsageError: localResponseNormalization: beta must be a number at least 0, received -1",
      "UsageError: localResponseNormalization: alphaDividedBy must be "none" or "size", received "n"",
      "UsageError: kWinnersTakeAll: expected either density or k, received neither",
      "UsageError: kWinnersTakeAll: expected either density or k, received both",
      "UsageError: kWinnersTakeAll: density must be a number above 0 and at most 1, received 0",
      "UsageError: kWinnersTakeAll: k must be a whole number of at least 1, received 0",
      "UsageError: kWinnersTakeAll: over must be "channels" or "all", received "units"",
      "UsageError: kWinnersTakeAll: boostStrength must be a number at least 0, received -1",
      "UsageError: kWinnersTakeAll: dutyCyclePeriod must be a whole number of at least 1, received 0",
      "UsageError: pushPullConv2d: filters must be a whole number of at least 1, received 0",
      "UsageError: pushPullConv2d: kernelSize must be odd, so that it has a centre, received 4,4",
      "UsageError: pushPullConv2d: scale must be a number at least 1, received 0.5",
      "UsageError: pushPullConv2d: strength must be a number at least 0, received -1",
      "UsageError: lateralInhibition "lateralInhibition_1": expected feature maps [N, H, W, C], received [N, 5]",
      "UsageError: differenceOfGaussians "differenceOfGaussians_1": expected feature maps [N, H, W, C], received [N, 5]",
      "UsageError: pushPullConv2d "pushPullConv2d_1": expected feature maps [N, H, W, C], received [N, 5]",
      "UsageError: divisiveNormalization "divisiveNormalization_1": over "space" expects feature maps [N, H, W, C], received vectors [N, F]",
      "UsageError: mexicanHat "mexicanHat_1": expected at least 3 channels on the ring, received 2",
      "UsageError: mexicanHat "mexicanHat_1": no equilibrium: the lateral input grows by a factor of 3.642 a step and must shrink; lower strength 2 or width 3",
      "UsageError: kWinnersTakeAll "kWinnersTakeAll_1": k must be at most the 5 units that compete, received 6",
    ]
  `)
})
