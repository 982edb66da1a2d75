import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import type { Tensor } from '../src/graph/node.ts'
import { batchOutward } from '../src/graph/ops/batch-axis.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { sumAll } from '../src/graph/ops/reduce.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import type { ActivationName } from '../src/nn/activations.ts'
import * as brain from '../src/nn/brain/index.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Layer } from '../src/nn/layer.ts'
import * as convolution from '../src/nn/layers/convolution.ts'
import * as core from '../src/nn/layers/core.ts'
import * as normalization from '../src/nn/layers/normalization.ts'
import * as padding from '../src/nn/layers/padding.ts'
import * as pooling from '../src/nn/layers/pooling.ts'
import { layerKinds } from '../src/nn/layers.ts'
import { connect, functional, type Model, sequential } from '../src/nn/model.ts'
import { type HostTensor, hostTensor } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import { valuesOf } from './reference.ts'

/** ONNX Runtime in float32, of values and sums of up to a hundred products, times the largest value. */
const FLOAT32 = 1e-5

interface Numbers {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

interface Named extends Numbers {
  readonly name: string
}

interface Golden {
  readonly name: string
  readonly layer: string
  // biome-ignore lint/suspicious/noExplicitAny: options are each layer's own.
  readonly config: any
  readonly training: boolean
  readonly input: Numbers
  readonly weights: readonly Named[]
  readonly output: Numbers
  readonly cotangent: Numbers
  readonly inputGradient: Numbers
  readonly weightGradients: readonly Named[]
  readonly updatedBuffers?: readonly Named[]
}

const golden: readonly Golden[] = JSON.parse(
  readFileSync(new URL('golden/layers.json', import.meta.url), 'utf8'),
).cases

const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

/** Fovea's layer for each of Keras's classes. Only what a case names is given: the rest are the defaults. */
const layers: Readonly<Record<string, (config: Golden['config']) => Layer>> = {
  Dense: core.dense,
  Conv2D: convolution.conv2d,
  DepthwiseConv2D: convolution.depthwiseConv2d,
  SeparableConv2D: convolution.separableConv2d,
  MaxPooling2D: pooling.maxPooling2d,
  AveragePooling2D: pooling.averagePooling2d,
  GlobalAveragePooling2D: pooling.globalAveragePooling2d,
  GlobalMaxPooling2D: pooling.globalMaxPooling2d,
  Flatten: core.flatten,
  BatchNormalization: normalization.batchNormalization,
  LayerNormalization: normalization.layerNormalization,
  Activation: config => core.activation(camel(config.activation) as ActivationName),
  ReLU: core.relu,
  LeakyReLU: ({ negativeSlope }) => core.leakyRelu({ slope: negativeSlope }),
  ELU: core.elu,
  Softmax: () => core.activation('softmax'),
}

/** Golden cases of what Fovea does not have. */
const absent: Readonly<Record<string, string>> = {
  'Activation gelu tanh': 'the exact form only, as in Keras by default',
  'GroupNormalization groups 1': 'no GroupNormalization',
  'GroupNormalization groups 2': 'no GroupNormalization',
  'GroupNormalization groups 4': 'no GroupNormalization',
}

/**
 * Kinds without golden cases here: tested directly below, in programs.test.ts (dropout), or in
 * preprocessing.test.ts.
 */
const direct = [
  'add',
  'concatenate',
  'rescaling',
  'dropout',
  'zeroPadding2d',
  'channelPadding',
  'resizing',
  'caffePixels',
]

const cases = golden.filter(({ name }) => !absent[name])

test('every kind of layer has a golden case or a direct test', () => {
  expect(golden.map(({ name }) => name)).toEqual(expect.arrayContaining(Object.keys(absent)))
  const kinds = cases.map(({ layer, config }) => layers[layer]!(config).layer)
  const tested = new Set<string>([...kinds, ...direct])
  const others = layerKinds.filter(kind => !tested.has(kind))
  expect([...tested].filter(kind => !layerKinds.includes(kind))).toEqual([])
  // Those of nn/brain have a suite of their own.
  expect(others.filter(kind => !Object.hasOwn(brain, kind))).toEqual([])
})

/** A model in which one layer, `tested`, reads the images: vectors [N, F] enter as images [N, 1, 1, F]. */
function modelAround(layer: Layer, { shape }: Numbers): Model {
  const size = (shape.length === 2 ? [1, 1, shape[1]!] : shape.slice(1)) as [number, number, number]
  return functional({ input: size }, images => {
    const source = shape.length === 2 ? connect(core.flatten(), images) : images
    return connect(core.flatten(), connect({ ...layer, name: 'tested' }, source))
  })
}

const host = ({ shape, data }: Numbers): HostTensor => hostTensor('float32', shape, data)

/** The layer's output in public order. */
const outward = (x: Tensor) => (x.shape.length === 4 ? batchOutward(x) : x)

describe('Keras', () => {
  test.each(cases)('$name', async row => {
    const model = modelAround(layers[row.layer]!(row.config), row.input)
    const images = input('images', 'float32', [row.input.shape[0]!, ...model.input])
    const built = buildModel(model, images, { training: row.training })
    const y = outward(built.outputs.get('tested')!)

    const named = row.weights.map(weight => [`tested/${camel(weight.name)}`, weight] as const)
    expect([...built.parameters, ...built.buffers].map(({ name, tensor }) => [name, tensor.shape])).toEqual(
      named.map(([name, { shape }]) => [name, shape]),
    )
    expect(built.parameters.map(({ name }) => name)).toEqual(
      row.weightGradients.map(({ name }) => `tested/${camel(name)}`),
    )

    const loss = sumAll(mul(y, constant(host(row.cotangent))))
    const slopes = gradients(loss, [images, ...built.parameters.map(({ tensor }) => tensor)])
    const updates = built.buffers.map(({ next }) => next).filter(next => next !== undefined)
    const results = await evaluate([y, ...slopes, ...updates], {
      images: { ...host(row.input), shape: images.shape },
      ...Object.fromEntries(named.map(([name, weight]) => [name, host(weight)])),
    })

    const expected: readonly (readonly [string, Numbers])[] = [
      ['output', row.output],
      ['gradient of the input', { ...row.inputGradient, shape: images.shape }],
      ...row.weightGradients.map(weight => [`gradient of ${weight.name}`, weight] as const),
      ...(row.updatedBuffers ?? []).map(buffer => [buffer.name, buffer] as const),
    ]
    expect(results).toHaveLength(expected.length)
    for (const [i, [what, numbers]] of expected.entries())
      expectClose(
        valuesOf(results[i]!),
        { shape: numbers.shape, data: Float64Array.from(numbers.data) },
        FLOAT32,
        what,
      )
  })
})

/** Runs a model on float32 images in evaluation mode and gives a layer's values in public order. */
async function outputOf(model: Model, values: readonly number[], layer = model.output) {
  const images = input('images', 'float32', [1, ...model.input])
  const y = outward(buildModel(model, images, { training: false }).outputs.get(layer)!)
  const [result] = await evaluate([y], { images: hostTensor('float32', images.shape, values) })
  return { shape: result!.shape, data: [...(result!.data as Float32Array)] }
}

describe('layers that only join or scale', () => {
  const scaled = (scale: number, offset = 0) => core.rescaling({ scale, offset })
  const joined = (join: Layer) =>
    functional({ input: [1, 2, 2] }, images => {
      const both = connect(
        { ...join, name: 'join' },
        connect(scaled(10), images),
        connect(scaled(1, 0.5), images),
      )
      return connect(core.flatten(), both)
    })

  test('rescaling: y = scale x + offset', async () => {
    const model = sequential([scaled(2, -1), core.flatten()], { input: [1, 1, 3] })
    expect((await outputOf(model, [0, 1, 100])).data).toEqual([-1, 1, 199])
  })

  test('add: the sum', async () => {
    const { shape, data } = await outputOf(joined(core.add()), [1, 2, 3, 4], 'join')
    expect(shape).toEqual([1, 1, 2, 2])
    expect(data).toEqual([11.5, 22.5, 33.5, 44.5])
  })

  test('concatenate: channels of one input after those of the other', async () => {
    const { shape, data } = await outputOf(joined(core.concatenate()), [1, 2, 3, 4], 'join')
    expect(shape).toEqual([1, 1, 2, 4])
    expect(data).toEqual([10, 20, 1.5, 2.5, 30, 40, 3.5, 4.5])
  })

  test('zeroPadding2d: zeros around, as many on each side as it says', async () => {
    const layer = padding.zeroPadding2d({
      name: 'pad',
      padding: [
        [1, 1],
        [0, 2],
      ],
    })
    const model = sequential([layer, core.flatten()], { input: [1, 2, 1] })
    const { shape, data } = await outputOf(model, [1, 2], 'pad')
    expect(shape).toEqual([1, 3, 4, 1])
    expect(data).toEqual([0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0, 0])
  })

  test('channelPadding: zeros after the channels', async () => {
    const layer = padding.channelPadding({ name: 'pad', channels: 3 })
    const model = sequential([layer, core.flatten()], { input: [1, 2, 2] })
    const { shape, data } = await outputOf(model, [1, 2, 3, 4], 'pad')
    expect(shape).toEqual([1, 1, 2, 3])
    expect(data).toEqual([1, 2, 0, 3, 4, 0])
  })

  test('padding: messages', () => {
    const narrow = sequential([padding.channelPadding({ name: 'it', channels: 2 }), core.flatten()], {
      input: [1, 1, 3],
    })
    expect(
      [
        () => padding.zeroPadding2d({ padding: -1 }),
        () => padding.channelPadding({ channels: 0 }),
        () => buildModel(narrow, input('images', 'float32', [1, 1, 1, 3]), { training: false }),
      ].map(errorOf),
    ).toEqual([
      'UsageError: zeroPadding2d: padding must be a whole number of at least 0, received -1',
      'UsageError: channelPadding: channels must be a whole number of at least 1, received 0',
      'UsageError: channelPadding "it": expected at most 2 channels, received 3',
    ])
  })

  test('three inputs', async () => {
    const model = functional({ input: [1, 1, 1] }, images => {
      const vectors = connect(core.flatten(), images)
      const copies = [1, 2, 3].map(scale => connect(scaled(scale), vectors))
      return connect(
        core.concatenate(),
        connect(core.add(), ...copies),
        connect(core.concatenate(), ...copies),
      )
    })
    expect((await outputOf(model, [5])).data).toEqual([30, 5, 10, 15])
  })
})

test('kernels start from Glorot and biases from zeros, as in Keras', () => {
  const model = sequential([core.flatten(), core.dense({ units: 30, name: 'logits' })], { input: [2, 5, 7] })
  const images = input('images', 'float32', [1, 2, 5, 7])
  const [kernel, bias] = buildModel(model, images, { training: true }).parameters
  const limit = Math.sqrt(6 / 100)
  const values = kernel!.initial(3)
  expect(Math.max(...values.map(Math.abs))).toBeLessThan(limit)
  expect(Math.max(...values.map(Math.abs))).toBeGreaterThan(0.98 * limit)
  expect(kernel!.initial(3)).toEqual(values)
  expect(kernel!.initial(4)).not.toEqual(values)
  expect(bias!.initial(3)).toEqual(new Float32Array(30))
})

test('messages of options', () => {
  const { conv2d, depthwiseConv2d, separableConv2d } = convolution
  const messages = [
    () => core.dense({ units: 0 }),
    () => core.dense({ units: 2.5 }),
    () => core.dropout(1),
    () => core.dropout(-0.1),
    () => core.rescaling({ scale: Number.NaN }),
    () => core.rescaling({ scale: 1, offset: Infinity }),
    () => core.leakyRelu({ slope: -1 }),
    () => core.elu({ alpha: Infinity }),
    () => conv2d({ filters: 0, kernelSize: 3 }),
    () => conv2d({ filters: 4, kernelSize: [3, 0] }),
    () => conv2d({ filters: 4, kernelSize: 3, strides: 0 }),
    () => conv2d({ filters: 4, kernelSize: 3, strides: 2, dilationRate: 2 }),
    () => conv2d({ filters: 4, kernelSize: 3, dilationRate: 0 }),
    () => conv2d({ filters: 4, kernelSize: 3, groups: 3 }),
    () => conv2d({ filters: 4, kernelSize: 3, padding: 'full' as 'same' }),
    () => depthwiseConv2d({ kernelSize: 3, depthMultiplier: 0 }),
    () => separableConv2d({ filters: 0, kernelSize: 3 }),
    () => separableConv2d({ filters: 2, kernelSize: 3, depthMultiplier: 0 }),
    () => pooling.maxPooling2d({ poolSize: 0 }),
    () => pooling.averagePooling2d({ strides: -1 }),
    () => normalization.batchNormalization({ momentum: 1.5 }),
    () => normalization.batchNormalization({ epsilon: -1 }),
    () => normalization.layerNormalization({ epsilon: -1 }),
  ]
  expect(messages.map(errorOf).join('\n')).toMatchInlineSnapshot(`
    "UsageError: dense: units must be a whole number of at least 1, received 0
    UsageError: dense: units must be a whole number of at least 1, received 2.5
    UsageError: dropout: rate must be a number of at least 0 and below 1, received 1
    UsageError: dropout: rate must be a number of at least 0 and below 1, received -0.1
    UsageError: rescaling: scale must be a number, received NaN
    UsageError: rescaling: offset must be a number, received Infinity
    UsageError: leakyRelu: slope must be a number between 0 and 1, received -1
    UsageError: elu: alpha must be a number at least 0, received Infinity
    UsageError: conv2d: filters must be a whole number of at least 1, received 0
    UsageError: conv2d: kernelSize must be a whole number of at least 1, received 0
    UsageError: conv2d: strides must be a whole number of at least 1, received 0
    UsageError: conv2d: strides and dilationRate cannot both exceed 1, received [2, 2] and [2, 2]
    UsageError: conv2d: dilationRate must be a whole number of at least 1, received 0
    UsageError: conv2d: groups must divide filters, received 3 and 4
    UsageError: conv2d: padding must be "valid" or "same", received "full"
    UsageError: depthwiseConv2d: depthMultiplier must be a whole number of at least 1, received 0
    UsageError: separableConv2d: filters must be a whole number of at least 1, received 0
    UsageError: separableConv2d: depthMultiplier must be a whole number of at least 1, received 0
    UsageError: maxPooling2d: poolSize must be a whole number of at least 1, received 0
    UsageError: averagePooling2d: strides must be a whole number of at least 1, received -1
    UsageError: batchNormalization: momentum must be a number between 0 and 1, received 1.5
    UsageError: batchNormalization: epsilon must be a number at least 0, received -1
    UsageError: layerNormalization: epsilon must be a number at least 0, received -1"
  `)
})

test('messages of layers that do not fit their input', () => {
  const build = (model: Model) =>
    buildModel(model, input('images', 'float32', [2, ...model.input]), { training: true })
  const alone = (layer: Layer, size: [number, number, number] = [5, 6, 3]) =>
    build(sequential([{ ...layer, name: 'block1/it' }, core.flatten()], { input: size }))
  const afterFlatten = (layer: Layer) =>
    build(sequential([core.flatten(), { ...layer, name: 'block1/it' }], { input: [5, 6, 3] }))
  const both = (layer: Layer, first: Layer) =>
    build(
      functional({ input: [5, 6, 3] }, images =>
        connect({ ...layer, name: 'join' }, images, connect(first, images)),
      ),
    )
  const twice = (layer: Layer) =>
    build(functional({ input: [5, 6, 3] }, images => connect({ ...layer, name: 'it' }, images, images)))
  const { conv2d, depthwiseConv2d, separableConv2d } = convolution
  const messages = [
    () => alone(core.dense({ units: 3 })),
    () => afterFlatten(conv2d({ filters: 2, kernelSize: 3 })),
    () => afterFlatten(depthwiseConv2d({ kernelSize: 3 })),
    () => afterFlatten(separableConv2d({ filters: 2, kernelSize: 3 })),
    () => afterFlatten(pooling.maxPooling2d()),
    () => afterFlatten(pooling.averagePooling2d()),
    () => afterFlatten(pooling.globalAveragePooling2d()),
    () => afterFlatten(pooling.globalMaxPooling2d()),
    () => alone(conv2d({ filters: 4, kernelSize: 3, groups: 2 })),
    () => alone(conv2d({ filters: 4, kernelSize: 7 })),
    () => alone(conv2d({ filters: 4, kernelSize: 3, dilationRate: 3 })),
    () => alone(pooling.maxPooling2d({ poolSize: [2, 9] })),
    () => alone(core.add()),
    () => alone(core.concatenate()),
    () => both(core.add(), conv2d({ filters: 4, kernelSize: 1 })),
    () => both(core.add(), core.flatten()),
    () => both(core.concatenate(), pooling.maxPooling2d()),
    () => both(core.concatenate(), core.flatten()),
    () => twice(core.dense({ units: 2 })),
    () => twice(core.relu()),
    () => alone(core.activation('rellu' as 'relu')),
    () => alone(core.activation('toString' as 'relu')),
  ]
  expect(messages.map(errorOf).join('\n')).toMatchInlineSnapshot(`
    "UsageError: dense "block1/it": expected vectors [N, F], received [N, 5, 6, 3]; add flatten() or a pooling before it
    UsageError: conv2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: depthwiseConv2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: separableConv2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: maxPooling2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: averagePooling2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: globalAveragePooling2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: globalMaxPooling2d "block1/it": expected feature maps [N, H, W, C], received [N, 90]
    UsageError: conv2d "block1/it": groups 2 must divide the input's channels, received 3
    UsageError: conv2d "block1/it": a window of 7 x 7 does not fit in 5 x 6 (padding "valid")
    UsageError: conv2d "block1/it": a window of 7 x 7 does not fit in 5 x 6 (padding "valid")
    UsageError: maxPooling2d "block1/it": a window of 2 x 9 does not fit in 5 x 6 (padding "valid")
    UsageError: add "block1/it": expected at least two inputs, received 1
    UsageError: concatenate "block1/it": expected at least two inputs, received 1
    UsageError: add "join": expected inputs of one shape, received [N, 5, 6, 3] and [N, 5, 6, 4]
    UsageError: add "join": expected inputs of one shape, received [N, 5, 6, 3] and [N, 90]
    UsageError: concatenate "join": expected inputs that differ in their channels only, received [N, 5, 6, 3] and [N, 2, 3, 3]
    UsageError: concatenate "join": expected inputs that differ in their channels only, received [N, 5, 6, 3] and [N, 90]
    UsageError: dense "it": expected one input, received 2
    UsageError: activation "it": expected one input, received 2
    UsageError: unknown activation "rellu"; did you mean "relu"? known: linear, relu, leakyRelu, elu, gelu, tanh, sigmoid, softplus, silu, softmax
    UsageError: unknown activation "toString"; known: linear, relu, leakyRelu, elu, gelu, tanh, sigmoid, softplus, silu, softmax"
  `)
  // The list of all kinds grows.
  expect(errorOf(() => alone({ layer: 'conv2D' }))).toMatch(
    /^UsageError: unknown layer "conv2D"; did you mean "conv2d"\? known: dense, activation, /,
  )
})
