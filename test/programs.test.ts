import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { gradients } from '../src/autodiff/gradients.ts'
import { emitGraph } from '../src/compile/emit.ts'
import { compileTraining, type TrainProgram } from '../src/compile/train-program.ts'
import { leakyRelu as leakyReluOf, mul, sub } from '../src/graph/ops/elementwise.ts'
import { matMul, reduceMean } from '../src/graph/ops/reduce.ts'
import { reshape } from '../src/graph/ops/shape.ts'
import { constant, input } from '../src/graph/ops/source.ts'
import { buildModel } from '../src/nn/build.ts'
import type { Layer } from '../src/nn/layer.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import { dense, flatten, leakyRelu, rescaling } from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { averagePooling2d, maxPooling2d } from '../src/nn/layers/pooling.ts'
import { crossEntropy, lossPerExample } from '../src/nn/losses.ts'
import { type Model, sequential } from '../src/nn/model.ts'
import { adam, type Optimizer, rmsprop, sgd } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { formatModel } from '../src/onnx/format.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import { type HostTensor, hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import { valuesOf } from './reference.ts'
import { type Data, initialState, noise, type State, train } from './train-with.ts'

interface Numbers {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

interface Named extends Numbers {
  readonly name: string
}

interface Golden {
  readonly name: string
  readonly inputShape: readonly [number, number, number]
  // biome-ignore lint/suspicious/noExplicitAny: options are each layer's own.
  readonly layers: readonly any[]
  // biome-ignore lint/suspicious/noExplicitAny: options are each optimizer's own.
  readonly optimizer: any
  readonly l2: number
  readonly initialWeights: readonly Named[]
  readonly initialBuffers: readonly Named[]
  readonly steps: readonly { images: Numbers; labels: readonly number[]; loss: number; correct: number }[]
  readonly finalWeights: readonly Named[]
  readonly finalBuffers: readonly Named[]
}

const golden: readonly Golden[] = JSON.parse(
  readFileSync(new URL('golden/training.json', import.meta.url), 'utf8'),
).cases

const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())

let engine: Engine
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
})
afterAll(() => engine.close())

/** Fovea's layers for the golden nets. */
const layers: Readonly<Record<string, (options: Golden['layers'][number]) => Layer>> = {
  Conv2D: conv2d,
  Dense: dense,
  Flatten: flatten,
  MaxPooling2D: maxPooling2d,
  AveragePooling2D: averagePooling2d,
  BatchNormalization: batchNormalization,
  LeakyReLU: ({ negativeSlope }) => leakyRelu({ slope: negativeSlope }),
}

const optimizers: Readonly<Record<string, (options: Golden['optimizer']) => Optimizer>> = {
  Adam: adam,
  SGD: sgd,
  RMSprop: rmsprop,
}

function programOf(net: Golden): TrainProgram {
  const built = net.layers.map(({ layer, ...options }) => {
    const penalized = net.l2 > 0 && layer === 'Dense'
    return layers[layer]!(penalized ? { ...options, kernelRegularizer: l2(net.l2) } : options)
  })
  const { name, ...options } = net.optimizer
  return compileTraining({
    model: sequential([rescaling({ scale: 1 / 255 }), ...built], { input: net.inputShape, name: net.name }),
    loss: crossEntropy(),
    optimizer: optimizers[name]!(options),
    batchSize: net.steps[0]!.labels.length,
  })
}

describe.each(golden)('PyTorch trains as Fovea: $name', net => {
  const program = programOf(net)
  const all = net.steps.flatMap(({ images }) => images.data)
  const data: Data = {
    images: hostTensor('uint8', [all.length / sizeOf(net.inputShape), ...net.inputShape], all),
    labels: hostTensor(
      'int32',
      [net.steps.length * program.batchSize],
      net.steps.flatMap(step => step.labels),
    ),
  }
  const start: State = {
    ...initialState(program),
    ...Object.fromEntries(
      [...net.initialWeights, ...net.initialBuffers].map(({ name, shape, data }) => [
        camel(name),
        hostTensor('float32', shape, data),
      ]),
    ),
  }

  test('losses, correct predictions, weights and averages over eight steps', async () => {
    expect(Object.keys(start).sort()).toEqual(program.state.map(({ name }) => name).sort())
    const trained = await train(engine, program, data, net.optimizer.learningRate, [net.steps.length], start)
    for (const [i, step] of net.steps.entries()) expect(trained.loss[i]).toBeCloseTo(step.loss, 5)
    expect(trained.correct).toEqual(net.steps.map(step => step.correct))
    expect(trained.finite).toBe(0)
    for (const { name, shape, data } of [...net.finalWeights, ...net.finalBuffers])
      expectClose(
        valuesOf(trained.state[camel(name)]!),
        { shape, data: Float64Array.from(data) },
        // Float32 throughout, eight steps; weights are of the order of 1.
        2e-6,
        name,
      )
  })

  test('eight steps in one call are eight calls of one step, bit for bit', async () => {
    const rate = net.optimizer.learningRate
    const once = await train(engine, program, data, rate, [8], start)
    expect(await train(engine, program, data, rate, [1, 1, 1, 1, 1, 1, 1, 1], start)).toEqual(once)
    expect(await train(engine, program, data, rate, [3, 5], start)).toEqual(once)
  })

  test('compiles to the same bytes again', () => {
    expect(programOf(net).hash).toBe(program.hash)
  })
})

// Parameters of few values are updated as one vector, others each by itself.
test.each([
  ['a large parameter among small ones', [dense({ units: 350 }), batchNormalization(), dense({ units: 3 })]],
  [
    'two large ones, one small',
    [dense({ units: 350, useBias: false }), dense({ units: 90 }), dense({ units: 3 })],
  ],
  ['one small parameter', [dense({ units: 3, useBias: false })]],
  ['one large parameter', [dense({ units: 400, useBias: false })]],
])('a step of gradient descent takes each parameter down its gradient: %s', async (_name, tail) => {
  const model = sequential([rescaling({ scale: 1 / 255 }), flatten(), ...tail], { input: [8, 8, 1] })
  const program = compileTraining({ model, loss: crossEntropy(), optimizer: sgd(), batchSize: 8 })
  const data = noise(8, [8, 8, 1], 3)
  const start = initialState(program)
  const { state } = await train(engine, program, data, 0.5, [1], start)

  const images = input('images', 'float32', [8, 8, 8, 1])
  const labels = input('labels', 'int32', [8])
  const { logits, parameters } = buildModel(model, images, { training: true })
  const mean = reduceMean(lossPerExample(crossEntropy(), logits, labels))
  const tensors = parameters.map(({ tensor, transposed }) => transposed ?? tensor)
  const expected = await evaluate(
    gradients(mean, tensors).map((gradient, i) => sub(tensors[i]!, mul(gradient, 0.5))),
    {
      ...start,
      ...Object.fromEntries(
        parameters.flatMap(({ name, transposed }) =>
          transposed ? [[`transposed/${name}`, turned(start[name]!)]] : [],
        ),
      ),
      labels: data.labels,
      images: hostTensor('float32', images.shape, toNumbers(data.images)),
    },
  )
  for (const [i, { name, transposed }] of parameters.entries()) {
    const value = transposed ? turned(expected[i]!) : expected[i]!
    expectClose(valuesOf(state[name]!), valuesOf(value), 1e-6, name)
    expect(toNumbers(state[name]!), name).not.toEqual(toNumbers(start[name]!))
  }
})

/** The transpose of a matrix: as a program keeps the first of its large ones. */
function turned({ shape, data }: HostTensor): HostTensor {
  const [rows, columns] = shape as [number, number]
  const values = Array.from(
    { length: rows * columns },
    (_, i) => data[(i % rows) * columns + Math.floor(i / rows)],
  )
  return hostTensor('float32', [columns, rows], values.map(Number))
}

test('equal computations and constants are emitted once, different ones each', () => {
  const x = input('x', 'float32', [3])
  const named = [
    leakyReluOf(x, 0.1),
    leakyReluOf(x, 0.3),
    leakyReluOf(x, 0.1),
    mul(x, 2),
    sub(mul(x, 2), 2),
  ].map((tensor, i) => ({ name: `y${i}`, tensor }))
  const { nodes, initializers } = emitGraph(named, [x])
  expect(nodes.map(({ op, inputs, outputs }) => `${outputs} = ${op}(${inputs})`)).toEqual([
    'y0 = LeakyRelu(x)',
    'y1 = LeakyRelu(x)',
    'y3 = Mul(x,constant_0)',
    'y4 = Sub(y3,constant_0)',
    'y2 = Identity(y0)',
  ])
  expect(initializers).toHaveLength(1)
})

test('what constants become is written as constants', () => {
  const x = input('x', 'float32', [2, 1])
  const matrix = constant(hostTensor('float32', [2, 3], [1, 2, 3, 4, 5, 6]))
  const named = [mul(x, 2), matMul(matrix, x, { transA: true })].map((tensor, i) => ({
    name: `y${i}`,
    tensor,
  }))
  const { nodes, initializers } = emitGraph(named, [x])
  expect(nodes.map(({ op }) => op)).toEqual(['Mul', 'MatMul'])
  // No scalar without axes, of which the first was made; the matrix as it is read.
  expect(initializers.map(({ tensor: { shape, data } }) => [shape, [...data]])).toEqual([
    [[1, 1], [2]],
    [
      [3, 2],
      [1, 4, 2, 5, 3, 6],
    ],
  ])
})

test('what is no number, or has a factor, keeps its node or its factor', () => {
  const x = input('x', 'float32', [2, 1])
  const matrix = constant(hostTensor('float32', [2, 3], [1, 2, 3, 4, 5, 6]))
  const column = reshape(constant(hostTensor('float32', [2], [1, 2])), [2, 1])
  const named = [mul(x, column), matMul(matrix, x, { transA: true, scale: 3 })].map((tensor, i) => ({
    name: `y${i}`,
    tensor,
  }))
  const { nodes } = emitGraph(named, [x])
  expect(nodes.map(({ op }) => op)).toEqual(['Reshape', 'Mul', 'Gemm'])
  expect(nodes[2]!.attributes).toEqual({ transA: { int: 0 }, transB: { int: 0 }, alpha: { float: 3 } })
})

test('the emitted program of a tiny net', () => {
  const tiny: Model = sequential([rescaling({ scale: 0.5 }), flatten(), dense({ units: 2 })], {
    input: [2, 1, 1],
    name: 'tiny',
  })
  const program = compileTraining({
    model: tiny,
    loss: crossEntropy(),
    optimizer: sgd({ momentum: 0.9 }),
    batchSize: 3,
  })
  expect(formatModel(decodeModel(program.bytes))).toMatchInlineSnapshot(`
    "ir 9, opset 18, opset com.microsoft 1, producer fovea
    graph train tiny(steps: int64[], images: uint8[rows, 2, 1, 1], labels: int32[rows], order: int32[steps, 3], scalars: float32[steps, 1], dense_1/kernel: float32[2, 2], dense_1/bias: float32[2], optimizer/momentum/dense_1/kernel: float32[2, 2], optimizer/momentum/dense_1/bias: float32[2]) -> (next/dense_1/kernel: float32[2, 2], next/dense_1/bias: float32[2], next/optimizer/momentum/dense_1/kernel: float32[2, 2], next/optimizer/momentum/dense_1/bias: float32[2], loss: float32[steps], correct: float32[steps], finite: float32[])
      true = bool[] {1}
      begin/constant_0 = int64[2] {1, 4}
      begin/constant_1 = int64[2] {1, 2}
      begin/constant_2 = int64[1] {6}
      end/constant_0 = int64[2] {4, 2}
      end/constant_1 = int64[2] {2, 2}
      end/constant_2 = float32[] {0}
      end/constant_3 = int64[2] {0, 1}
      end/constant_4 = int64[0] {}
      end/constant_5 = int64[1] {0}
      begin/Reshape_1 = Reshape(dense_1/kernel, begin/constant_0)
      begin/Reshape_2 = Reshape(dense_1/bias, begin/constant_1)
      begin/Concat_3 = Concat(begin/Reshape_1, begin/Reshape_2) {axis=1}
      packed/parameters = Reshape(begin/Concat_3, begin/constant_2)
      begin/Reshape_5 = Reshape(optimizer/momentum/dense_1/kernel, begin/constant_0)
      begin/Reshape_6 = Reshape(optimizer/momentum/dense_1/bias, begin/constant_1)
      begin/Concat_7 = Concat(begin/Reshape_5, begin/Reshape_6) {axis=1}
      packed/momentum = Reshape(begin/Concat_7, begin/constant_2)
      next/packed/parameters, next/packed/momentum, loss, correct = Loop(steps, true, packed/parameters, packed/momentum)
        body: train tiny step(iteration: int64[], condition: bool[], step/packed/parameters: float32[6], step/packed/momentum: float32[6]) -> (step/condition: bool[], step/next/packed/parameters: float32[6], step/next/packed/momentum: float32[6], step/loss: float32[], step/correct: float32[])
          constant_0 = float32[] {0.9}
          constant_1 = int64[2] {3, 2}
          constant_2 = int64[2] {4, 2}
          constant_3 = int64[2] {2, 2}
          constant_4 = int64[2] {3, 1}
          constant_5 = int32[1, 2] {0, 1}
          constant_6 = float32[3, 1] {0.333333, 0.333333, 0.333333}
          constant_7 = int64[2] {1, 4}
          constant_8 = float32[1, 3] {1, 1, 1}
          constant_9 = int64[1] {6}
          constant_10 = int64[0] {}
          constant_11 = int64[1] {1}
          constant_12 = int64[1] {3}
          constant_13 = int64[1] {0}
          constant_15 = float32[1] {0.333333}
          Mul_1 = Mul(step/packed/momentum, constant_0)
          Gather_2 = Gather(order, iteration) {axis=0}
          Gather_3 = Gather(images, Gather_2) {axis=0}
          Cast_4 = Cast(Gather_3) {to=1}
          Reshape_5 = Reshape(Cast_4, constant_1)
          Split_6_0, Split_6_1 = Split(step/packed/parameters, constant_2) {axis=0}
          Reshape_7 = Reshape(Split_6_0, constant_3)
          Gemm_8 = Gemm(Reshape_5, Reshape_7) {transA=0, transB=0, alpha=0.5}
          Add_9 = Add(Gemm_8, Split_6_1)
          Softmax_10 = Softmax(Add_9) {axis=-1}
          Gather_11 = Gather(labels, Gather_2) {axis=0}
          Reshape_12 = Reshape(Gather_11, constant_4)
          Equal_13 = Equal(Reshape_12, constant_5)
          Cast_14 = Cast(Equal_13) {to=1}
          Sub_15 = Sub(Softmax_10, Cast_14)
          Mul_16 = Mul(Sub_15, constant_6)
          Gemm_17 = Gemm(Reshape_5, Mul_16) {transA=1, transB=0, alpha=0.5}
          Reshape_18 = Reshape(Gemm_17, constant_7)
          MatMul_19 = MatMul(constant_8, Mul_16)
          Concat_20 = Concat(Reshape_18, MatMul_19) {axis=1}
          Reshape_21 = Reshape(Concat_20, constant_9)
          Gather_22 = Gather(scalars, iteration) {axis=0}
          Reshape_23 = Reshape(Gather_22, constant_10)
          Mul_24 = Mul(Reshape_21, Reshape_23)
          step/next/packed/momentum = Add(Mul_1, Mul_24)
          step/next/packed/parameters = Sub(step/packed/parameters, step/next/packed/momentum)
          LogSoftmax_27 = LogSoftmax(Add_9) {axis=-1}
          Mul_28 = Mul(Cast_14, LogSoftmax_27)
          ReduceSum_29 = ReduceSum(Mul_28, constant_11) {keepdims=1}
          Reshape_30 = Reshape(ReduceSum_29, constant_12)
          Neg_31 = Neg(Reshape_30)
          ReduceSum_32 = ReduceSum(Neg_31, constant_13) {keepdims=1}
          Mul_33 = Mul(ReduceSum_32, constant_15)
          step/loss = Reshape(Mul_33, constant_10)
          ArgMax_35 = ArgMax(Add_9) {axis=-1, keepdims=0}
          Cast_36 = Cast(ArgMax_35) {to=6}
          Equal_37 = Equal(Cast_36, Gather_11)
          Cast_38 = Cast(Equal_37) {to=1}
          ReduceSum_39 = ReduceSum(Cast_38, constant_13) {keepdims=1}
          step/correct = Reshape(ReduceSum_39, constant_10)
          step/condition = Identity(condition)
      end/Split_1_0, next/dense_1/bias = Split(next/packed/parameters, end/constant_0) {axis=0}
      next/dense_1/kernel = Reshape(end/Split_1_0, end/constant_1)
      end/Split_3_0, next/optimizer/momentum/dense_1/bias = Split(next/packed/momentum, end/constant_0) {axis=0}
      next/optimizer/momentum/dense_1/kernel = Reshape(end/Split_3_0, end/constant_1)
      end/Mul_5 = Mul(next/dense_1/kernel, end/constant_2)
      end/ReduceSum_6 = ReduceSum(end/Mul_5, end/constant_3) {keepdims=1}
      end/Reshape_7 = Reshape(end/ReduceSum_6, end/constant_4)
      end/Mul_8 = Mul(next/dense_1/bias, end/constant_2)
      end/ReduceSum_9 = ReduceSum(end/Mul_8, end/constant_5) {keepdims=1}
      end/Reshape_10 = Reshape(end/ReduceSum_9, end/constant_4)
      finite = Add(end/Reshape_7, end/Reshape_10)"
  `)
})
