import { describe, expect, test } from 'vitest'
import { compileTraining } from '../src/compile/train-program.ts'
import { topological } from '../src/graph/node.ts'
import { batchInnermost, batchInward, batchOutward } from '../src/graph/ops/batch-axis.ts'
import { conv } from '../src/graph/ops/conv.ts'
import { mul } from '../src/graph/ops/elementwise.ts'
import { transpose } from '../src/graph/ops/shape.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import { windowOf } from '../src/graph/ops/window.ts'
import { buildModel, parameterCount } from '../src/nn/build.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import { activation, add, concatenate, dense, dropout, flatten, rescaling } from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { globalAveragePooling2d, maxPooling2d } from '../src/nn/layers/pooling.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { connect, functional, type Model, sequential } from '../src/nn/model.ts'
import { adam } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { type HostTensor, hostTensor } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'

const build = (model: Model, training = false) =>
  buildModel(model, input('images', 'float32', [2, ...model.input]), { training })

const small = sequential(
  [
    rescaling({ scale: 1 / 255 }),
    conv2d({ filters: 4, kernelSize: 3, activation: 'relu', name: 'block1/conv' }),
    batchNormalization(),
    maxPooling2d(),
    flatten(),
    dropout(0.25),
    dense({ units: 6, activation: { activation: 'elu', alpha: 0.5 }, kernelRegularizer: l2(1e-3) }),
    dense({ units: 3 }),
  ],
  { input: [8, 8, 1], name: 'small' },
)

/**
 * Two branches, each with a layer of its own; one is joined by its sum with the stem, then all are
 * concatenated.
 */
const branched = functional({ input: [6, 6, 2], name: 'branched' }, images => {
  const stem = connect(conv2d({ filters: 4, kernelSize: 3, padding: 'same' }), images)
  const left = connect(conv2d({ filters: 4, kernelSize: 1 }), stem)
  const right = connect(conv2d({ filters: 4, kernelSize: 3, padding: 'same', strides: 1 }), stem)
  const residual = connect(add(), left, stem)
  const all = connect(concatenate(), residual, right, images)
  return connect(dense({ units: 3 }), connect(globalAveragePooling2d(), all))
})

describe('sequential', () => {
  test('chains layers and numbers those without a name by their kind', () => {
    expect(small.layers.map(({ name, inputs }) => `${inputs} -> ${name}`)).toEqual([
      'input -> rescaling_1',
      'rescaling_1 -> block1/conv',
      'block1/conv -> batchNormalization_1',
      'batchNormalization_1 -> maxPooling2d_1',
      'maxPooling2d_1 -> flatten_1',
      'flatten_1 -> dropout_1',
      'dropout_1 -> dense_1',
      'dense_1 -> dense_2',
    ])
    expect(small.output).toBe('dense_2')
  })

  test('names parameters and buffers after their layers', () => {
    const { parameters, buffers, randomKeys, penalty } = build(small, true)
    expect(parameters.map(({ name, tensor }) => `${name} [${tensor.shape}]`)).toEqual([
      'block1/conv/kernel [3,3,1,4]',
      'block1/conv/bias [4]',
      'batchNormalization_1/gamma [4]',
      'batchNormalization_1/beta [4]',
      'dense_1/kernel [36,6]',
      'dense_1/bias [6]',
      'dense_2/kernel [6,3]',
      'dense_2/bias [3]',
    ])
    expect(buffers.map(({ name, next }) => [name, next !== undefined])).toEqual([
      ['batchNormalization_1/movingMean', true],
      ['batchNormalization_1/movingVariance', true],
    ])
    expect(randomKeys).toEqual(['dropout_1/mask'])
    expect(penalty?.shape).toEqual([])
    expect(build(small).randomKeys).toEqual([])
    expect(build(small).buffers.map(({ next }) => next)).toEqual([undefined, undefined])
  })

  test('is frozen', () => {
    expect(Object.isFrozen(small)).toBe(true)
    expect(small.layers.every(({ layer }) => Object.isFrozen(layer))).toBe(true)
  })
})

describe('functional', () => {
  test('numbers the layers of all branches together', () => {
    expect(branched.layers.map(({ name, inputs }) => `${inputs.join(' + ')} -> ${name}`)).toEqual([
      'input -> conv2d_1',
      'conv2d_1 -> conv2d_2',
      'conv2d_2 + conv2d_1 -> add_1',
      'conv2d_1 -> conv2d_3',
      'add_1 + conv2d_3 + input -> concatenate_1',
      'concatenate_1 -> globalAveragePooling2d_1',
      'globalAveragePooling2d_1 -> dense_1',
    ])
  })

  test('leaves out layers that lead nowhere', () => {
    const model = functional({ input: [4, 4, 1] }, images => {
      connect(conv2d({ filters: 4, kernelSize: 3 }), images)
      return connect(dense({ units: 2 }), connect(flatten(), images))
    })
    expect(model.layers.map(({ name }) => name)).toEqual(['flatten_1', 'dense_1'])
  })

  test('computes what its graph says', async () => {
    const model = functional({ input: [1, 2, 1] }, images => {
      const doubled = connect(rescaling({ scale: 2 }), images)
      const shifted = connect(rescaling({ scale: 1, offset: 100 }), doubled)
      return connect(flatten(), connect(concatenate(), connect(add(), doubled, images), shifted))
    })
    const images = input('images', 'float32', [2, 1, 2, 1])
    const { logits } = buildModel(model, images, { training: false })
    const [result] = await evaluate([logits], { images: hostTensor('float32', images.shape, [1, 2, 3, 4]) })
    expect(result!.shape).toEqual([2, 4])
    expect([...(result!.data as Float32Array)]).toEqual([3, 102, 6, 104, 9, 106, 12, 108])
  })
})

test('the summary tells shapes in public order, parameters and buffers', () => {
  const lines = build(branched).summary.map(
    ({ name, output, parameters, buffers }) => `${name} [${output.join(', ')}] ${parameters} ${buffers}`,
  )
  expect(lines.join('\n')).toMatchInlineSnapshot(`
    "conv2d_1 [6, 6, 4] 76 0
    conv2d_2 [6, 6, 4] 20 0
    add_1 [6, 6, 4] 0 0
    conv2d_3 [6, 6, 4] 148 0
    concatenate_1 [6, 6, 10] 0 0
    globalAveragePooling2d_1 [10] 0 0
    dense_1 [3] 33 0"
  `)
  expect(
    build(small)
      .summary.map(({ output, parameters, buffers }) => `[${output.join(', ')}] ${parameters} ${buffers}`)
      .join('\n'),
  ).toMatchInlineSnapshot(`
    "[8, 8, 1] 0 0
    [6, 6, 4] 40 0
    [6, 6, 4] 8 8
    [3, 3, 4] 0 0
    [36] 0 0
    [36] 0 0
    [6] 222 0
    [3] 21 0"
  `)
})

test('parameters are counted as trained values, without buffers', () => {
  const [conv, norm, hidden, logits] = [9 * 4 + 4, 2 * 4, 36 * 6 + 6, 6 * 3 + 3]
  expect(parameterCount(small)).toBe(conv! + norm! + hidden! + logits!)
  expect(parameterCount(branched)).toBe(9 * 2 * 4 + 4 + (4 * 4 + 4) + (9 * 4 * 4 + 4) + (10 * 3 + 3))
  const summed = build(small).summary.reduce((sum, line) => sum + line.parameters, 0)
  expect(summed).toBe(parameterCount(small))
})

test.each([small, branched])('a model that went through JSON compiles to the same program: $name', model => {
  const compile = (of: Model) =>
    compileTraining({ model: of, loss: crossEntropy(), optimizer: adam(), batchSize: 4 })
  const copy: Model = JSON.parse(JSON.stringify(model))
  expect(copy).toEqual(model)
  const [first, second] = [compile(model), compile(copy)]
  expect(second.hash).toBe(first.hash)
  expect(second.state.map(({ initial }) => initial(5))).toEqual(first.state.map(({ initial }) => initial(5)))
})

test('initial values depend on the seed and the name alone', () => {
  const wider = sequential(
    [conv2d({ filters: 2, kernelSize: 1, name: 'new' }), ...small.layers.map(({ layer }) => layer)],
    { input: [8, 8, 1] },
  )
  const of = (model: Model, name: string) => build(model).parameters.find(one => one.name === name)!
  expect(of(wider, 'dense_2/kernel').initial(1)).toEqual(of(small, 'dense_2/kernel').initial(1))
  expect(of(small, 'dense_2/kernel').initial(1)).not.toEqual(of(small, 'dense_2/kernel').initial(2))
})

test('activations between two moves of the batch axis need neither move', () => {
  const images = input('images', 'float32', [2, 4, 4, 1])
  const model = sequential([rescaling({ scale: 2 }), activation('relu'), flatten()], { input: [4, 4, 1] })
  const { outputs } = buildModel(model, images, { training: false })
  const direct = batchOutward(outputs.get('activation_1')!)
  expect(direct.node.inputs[0]!.node.inputs[0]).toBe(images)
})

test('images reach the first convolution in one move of the batch axis', async () => {
  const images = input('images', 'float32', [2, 3, 2, 3])
  const scaled = mul(batchInward(images), 2)
  const columns = batchInnermost(scaled)
  const fed = {
    images: hostTensor(
      'float32',
      [2, 3, 2, 3],
      Array.from({ length: 36 }, (_, i) => i),
    ),
  }
  const [maps] = await evaluate([batchInward(images)], fed)
  const [fromImages, fromMaps] = await evaluate(
    [columns, batchInnermost(mul(input('maps', 'float32', [3, 2, 2, 3]), 2))],
    { ...fed, maps: maps! },
  )
  expect(fromImages).toEqual(fromMaps)
  // Pixel by pixel, both images beside each other.
  expect(Array.from(fromImages!.data as Float32Array).slice(0, 4)).toEqual([0, 36, 2, 38])
  const moves = topological([columns]).filter(node => /Batch|Transpose/.test(node.op.op))
  expect(moves.map(node => node.op.op)).toEqual(['Transpose'])
})

test('two convolutions of one image may gather in two forms', async () => {
  const images = input('images', 'float32', [2, 5, 5, 3])
  const x = batchInward(images)
  const window = windowOf('conv', [5, 5], [3, 3], [2, 2], 'same')
  const kernel = (k: number) => constant(hostTensor('float32', [3, 3, 3, k], new Array(27 * k).fill(1)))
  const values = Float32Array.from({ length: 150 }, (_, i) => i % 7)
  // Of more filters than channels: whole rows of minibatch values; of fewer: rows of channels.
  const [many, few] = await evaluate(
    [conv(x, kernel(8), undefined, window), conv(x, kernel(2), undefined, window)],
    {
      images: { dtype: 'float32', shape: [2, 5, 5, 3], data: values },
    },
  )
  const first = (result: HostTensor, k: number) =>
    Array.from(result.data as Float32Array).filter((_, i) => i % k === 0)
  expect(first(few!, 2)).toEqual(first(many!, 8))
})

test('messages', () => {
  const chain = (...layers: Parameters<typeof sequential>[0]) => sequential(layers, { input: [4, 4, 1] })
  const stored = (changes: object): Model =>
    JSON.parse(JSON.stringify({ ...chain(flatten(), dense({ units: 2 })), ...changes }))
  const messages = [
    () => chain(),
    () => functional({ input: [4, 4, 1] }, images => images),
    () => connect(dense({ units: 2 })),
    () => chain(flatten({ name: 'a' }), dense({ units: 2, name: 'a' })),
    () => chain(flatten({ name: 'input' })),
    () => build(chain(conv2d({ filters: 2, kernelSize: 3 }))),
    () => build(chain(dense({ units: 2 }))),
    () =>
      build(
        functional({ input: [4, 4, 1] }, images =>
          connect(
            add(),
            connect(conv2d({ filters: 2, kernelSize: 3, name: 'twin' }), images),
            connect(conv2d({ filters: 2, kernelSize: 3, name: 'twin' }), images),
          ),
        ),
      ),
    () => build(stored({ output: 'logits' })),
    () => build(stored({ layers: [{ name: 'a', layer: dense({ units: 2 }), inputs: ['b'] }] })),
    () => buildModel(small, input('images', 'float32', [2, 8, 8, 3]), { training: false }),
    () => buildModel(small, input('images', 'float32', [2, 64]), { training: false }),
    () => compileTraining({ model: small, loss: crossEntropy(), optimizer: adam(), batchSize: 0 }),
  ]
  expect(messages.map(errorOf).join('\n')).toMatchInlineSnapshot(`
    "UsageError: sequential: expected at least one layer, received none
    UsageError: functional: expected at least one layer, received none
    UsageError: connect: dense expects at least one place to read from, received none
    UsageError: connect: expected a name of its own for each layer, received "a" twice
    UsageError: layer name "input": expected one that does not begin with input, best, optimizer, next, packed, transposed, keys, augment, step, begin, end, data or an empty part
    UsageError: model "model": its output "conv2d_1" must be logits [N, classes], received feature maps; add flatten() and dense()
    UsageError: dense "dense_1": expected vectors [N, F], received [N, 4, 4, 1]; add flatten() or a pooling before it
    UsageError: model "model": expected a name of its own for each layer, received "twin" twice
    UsageError: model "model": its output "logits" is none of its layers: flatten_1, dense_1
    UsageError: model "model": layer "a" reads "b", which does not stand before it
    UsageError: model "small": expected images [N, 8, 8, 1], received [N, 8, 8, 3]
    UsageError: model "small": expected images [N, 8, 8, 1], received [N, 64]
    UsageError: compileTraining: batchSize must be a whole number of at least 1, received 0"
  `)
})

test('an unknown layer is met with the nearest name', () => {
  const model = sequential([{ layer: 'maxpooling2d' }], { input: [4, 4, 1] })
  expect(() => build(model)).toThrow('unknown layer "maxpooling2d"; did you mean "maxPooling2d"?')
})

test('a layer of one’s own that moves axes is not taken for one that scales values', async () => {
  const images = input('images', 'float32', [2, 3, 3, 1])
  const x = batchInward(images)
  const turned = batchOutward(transpose(x, [1, 0, 2, 3]))
  const values = Float32Array.from({ length: 18 }, (_, i) => i)
  const [result] = await evaluate([turned], {
    images: { dtype: 'float32', shape: [2, 3, 3, 1], data: values },
  })
  expect(Array.from(result!.data as Float32Array)).toEqual([
    0, 3, 6, 1, 4, 7, 2, 5, 8, 9, 12, 15, 10, 13, 16, 11, 14, 17,
  ])
})

test.each(['best', 'optimizer/x', 'input', 'next/a', ''])('a layer may not be named "%s"', name => {
  expect(errorOf(() => sequential([flatten({ name }), dense({ units: 2 })], { input: [2, 2, 1] }))).toMatch(
    /^UsageError: layer name ".*": expected one that does not begin with /,
  )
})
