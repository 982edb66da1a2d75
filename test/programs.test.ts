import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { emitGraph } from '../src/compile/emit.ts'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compilePrediction } from '../src/compile/predict-program.ts'
import { compileTraining, type TrainProgram } from '../src/compile/train-program.ts'
import { leakyRelu as leakyReluOf, mul, sub } from '../src/graph/ops/elementwise.ts'
import { softmax } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import type { Layer } from '../src/nn/layer.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import {
  activation,
  add,
  dense,
  dropout,
  flatten,
  leakyRelu,
  relu,
  rescaling,
} from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { averagePooling2d, globalAveragePooling2d, maxPooling2d } from '../src/nn/layers/pooling.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { buildModel, connect, functional, type Model, sequential } from '../src/nn/model.ts'
import { adam, type Optimizer, rmsprop, sgd } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { formatModel } from '../src/onnx/format.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import { type HostTensor, hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { key, randomBits } from '../src/util/random.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import { valuesOf } from './reference.ts'

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

interface Data {
  readonly images: HostTensor
  readonly labels: HostTensor
}

interface State {
  readonly [name: string]: HostTensor
}

const initialState = (program: TrainProgram, seed = 1): State =>
  Object.fromEntries(
    program.state.map(({ name, shape, initial }) => [
      name,
      { dtype: 'float32', shape, data: initial(seed) } as HostTensor,
    ]),
  )

/** The feeds of the steps `from` .. `from + count - 1`: batches in the order of the data, keys by step and stream. */
function feedsOf(program: TrainProgram, from: number, count: number, learningRate: number, rows: number) {
  const { batchSize, randomKeys } = program
  const steps = Array.from({ length: count }, (_, i) => from + i)
  const scalars = steps.map(step => program.scalars(step + 1, learningRate))
  const order = steps.flatMap(step =>
    Array.from({ length: batchSize }, (_, i) => (step * batchSize + i) % rows),
  )
  return {
    steps: hostTensor('int64', [], [count]),
    order: hostTensor('int32', [count, batchSize], order),
    scalars: hostTensor('float32', [count, scalars[0]!.length], scalars.flat()),
    ...Object.fromEntries(
      randomKeys.map(name => [
        `keys/${name}`,
        hostTensor(
          'uint32',
          [count, 1],
          steps.map(step => randomBits(key(9, name, step), 1)[0]!),
        ),
      ]),
    ),
  }
}

interface Trained {
  readonly loss: readonly number[]
  readonly correct: readonly number[]
  readonly finite: number
  readonly state: State
}

/** Trains in calls of the given numbers of steps. */
async function train(
  program: TrainProgram,
  data: Data,
  learningRate: number,
  calls: readonly number[],
  state: State = initialState(program),
): Promise<Trained> {
  const loaded = await engine.load(program.bytes)
  await engine.write({ ...state, ...data })
  const loss: number[] = []
  const correct: number[] = []
  let finite = 0
  let step = 0
  for (const count of calls) {
    const feeds = feedsOf(program, step, count, learningRate, data.labels.shape[0]!)
    const results = await loaded.run({ feeds, keep: program.keep })
    loss.push(...toNumbers(results.loss!))
    correct.push(...toNumbers(results.correct!))
    finite = toNumbers(results.finite!)[0]!
    step += count
  }
  const after = await engine.read(Object.keys(state))
  await loaded.release()
  return { loss, correct, finite, state: after }
}

/** Seeded noise as images, with seeded labels. */
function noise(rows: number, size: readonly [number, number, number], classes: number): Data {
  const pixels = randomBits(key(3, 'pixels'), rows * sizeOf(size)).map(bits => bits >>> 24)
  const labels = randomBits(key(3, 'labels'), rows).map(bits => bits % classes)
  return {
    images: hostTensor('uint8', [rows, ...size], pixels),
    labels: hostTensor('int32', [rows], labels),
  }
}

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
    const trained = await train(program, data, net.optimizer.learningRate, [net.steps.length], start)
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
    const once = await train(program, data, rate, [8], start)
    expect(await train(program, data, rate, [1, 1, 1, 1, 1, 1, 1, 1], start)).toEqual(once)
    expect(await train(program, data, rate, [3, 5], start)).toEqual(once)
  })

  test('compiles to the same bytes again', () => {
    expect(programOf(net).hash).toBe(program.hash)
  })
})

const classes = 3
const size = [8, 8, 2] as const
/** Every kind of layer that computes otherwise in a portable program, batch norm and a branch. */
const mixed = functional({ input: [8, 8, 2], name: 'mixed' }, images => {
  const scaled = connect(rescaling({ scale: 1 / 255 }), images)
  const stem = connect(conv2d({ filters: 6, kernelSize: 3, padding: 'same', strides: 2 }), scaled)
  const normal = connect(batchNormalization({ momentum: 0.5 }), stem)
  const grouped = connect(conv2d({ filters: 6, kernelSize: 3, padding: 'same', groups: 2 }), normal)
  const depthwise = connect(conv2d({ filters: 6, kernelSize: 3, padding: 'same', groups: 6 }), normal)
  const joined = connect(relu(), connect(add(), grouped, depthwise))
  const pooled = connect(maxPooling2d({ poolSize: 3, strides: 2, padding: 'same' }), joined)
  const averaged = connect(averagePooling2d({ strides: 1, padding: 'same' }), pooled)
  const wide = connect(conv2d({ filters: 8, kernelSize: 1, activation: 'gelu' }), averaged)
  return connect(dense({ units: classes }), connect(globalAveragePooling2d(), connect(dropout(0.3), wide)))
})

describe('evaluation and prediction', () => {
  const data = noise(24, size, classes)
  const batchSize = 6
  const loss = crossEntropy()
  const training = compileTraining({ model: mixed, loss, optimizer: adam(), batchSize })
  const evaluation = compileEvaluation(mixed, loss, batchSize)
  let state: State
  let results: Readonly<Record<string, HostTensor>>

  beforeAll(async () => {
    // A little training moves batch norm's averages away from 0 and 1.
    state = (await train(training, data, 0.01, [12])).state
    const loaded = await engine.load(evaluation.bytes)
    const parameters = Object.fromEntries(
      loaded.inputs.filter(name => state[name]).map(name => [name, state[name]!]),
    )
    results = await loaded.run({
      feeds: {
        ...data,
        ...parameters,
        steps: hostTensor('int64', [], [4]),
        order: hostTensor(
          'int32',
          [4, batchSize],
          Array.from({ length: 24 }, (_, i) => i),
        ),
      },
    })
    await loaded.release()
  })

  /** Probabilities of all images by the prediction program. */
  async function predict(values: State, count = 24): Promise<HostTensor> {
    const program = await engine.load(compilePrediction(mixed, values, count).bytes)
    const pixels = toNumbers(data.images).slice(0, count * sizeOf(size))
    const { probabilities } = await program.run({
      feeds: { images: hostTensor('float32', [count, ...size], pixels) },
    })
    await program.release()
    return probabilities!
  }

  test('agree on the predicted class, the loss and the correct predictions', async () => {
    const probabilities = toNumbers(await predict(state))
    const rows = Array.from({ length: 24 }, (_, n) => probabilities.slice(n * classes, (n + 1) * classes))
    const predicted = rows.map(row => row.indexOf(Math.max(...row)))
    expect(toNumbers(results.predicted!)).toEqual(predicted)
    expect(new Set(predicted).size).toBeGreaterThan(1)
    const labels = toNumbers(data.labels)
    for (let step = 0; step < 4; step++) {
      const batch = Array.from({ length: batchSize }, (_, i) => step * batchSize + i)
      const losses = batch.map(n => -Math.log(rows[n]![labels[n]!]!))
      expect(results.loss!.data[step]).toBeCloseTo(
        losses.reduce((a, b) => a + b),
        4,
      )
      expect(results.correct!.data[step]).toBe(batch.filter(n => predicted[n] === labels[n]).length)
    }
    expect(toNumbers(results.penalty!)).toEqual([0])
  })

  test("the portable form of ONNX's own operators gives what the training form gives", async () => {
    const images = input('images', 'float32', [24, ...size])
    const { logits } = buildModel(mixed, images, { training: false })
    const feeds = { ...state, images: hostTensor('float32', images.shape, toNumbers(data.images)) }
    const [own] = await evaluate([softmax(logits)], feeds)
    expectClose(valuesOf(await predict(state)), valuesOf(own!), 1e-5, 'probabilities')
  })

  test('the portable form has ONNX operators of its own and only ONNX operators', () => {
    const { graph } = decodeModel(compilePrediction(mixed, state).bytes)
    const count = (op: string) => graph.nodes.filter(node => node.op === op).length
    expect([count('Conv'), count('MaxPool'), count('AveragePool'), count('Gather')]).toEqual([4, 1, 1, 0])
    expect(graph.nodes.filter(({ domain }) => domain !== undefined && domain !== '')).toEqual([])
    expect(graph.inputs.map(({ name, shape }) => [name, shape])).toEqual([['images', [1, 8, 8, 2]]])
  })

  test('an image is predicted the same alone and among others', async () => {
    const [one, all] = [await predict(state, 1), await predict(state)]
    expectClose(
      valuesOf(one),
      { shape: [1, classes], data: valuesOf(all).data.slice(0, classes) },
      1e-6,
      'probabilities',
    )
  })

  test('the penalty is the sum of the regularizers', async () => {
    const model = sequential([flatten(), dense({ units: 2, kernelRegularizer: l2(0.5) })], {
      input: [1, 1, 2],
    })
    const program = await engine.load(compileEvaluation(model, loss, 1).bytes)
    const { penalty } = await program.run({
      feeds: {
        steps: hostTensor('int64', [], [1]),
        images: hostTensor('uint8', [1, 1, 1, 2], [0, 0]),
        labels: hostTensor('int32', [1], [0]),
        order: hostTensor('int32', [1, 1], [0]),
        'dense_1/kernel': hostTensor('float32', [2, 2], [1, -2, 3, 0]),
        'dense_1/bias': hostTensor('float32', [2], [9, 9]),
      },
    })
    expect(toNumbers(penalty!)).toEqual([7])
  })

  test('say which value is missing or misshapen', () => {
    const { 'dense_1/bias': _, ...without } = state
    const misshapen = { ...state, 'dense_1/bias': hostTensor('float32', [2], [0, 0]) }
    expect(
      [() => compilePrediction(mixed, without), () => compilePrediction(mixed, misshapen)]
        .map(errorOf)
        .join('\n'),
    ).toMatchInlineSnapshot(`
      "FoveaError: model "mixed": expected values [3] for "dense_1/bias", received none
      FoveaError: model "mixed": expected values [3] for "dense_1/bias", received [2]"
    `)
  })
})

describe('a diverged run', () => {
  const data = noise(16, [4, 4, 1], 2)
  const net = (act: Layer) =>
    sequential(
      [conv2d({ filters: 4, kernelSize: 3 }), act, flatten(), dense({ units: 8 }), act, dense({ units: 2 })],
      {
        input: [4, 4, 1],
      },
    )

  test.each([
    ['relu', relu()],
    ['leakyRelu', leakyRelu()],
    ['elu', activation('elu')],
    ['gelu', activation('gelu')],
    ['tanh', activation('tanh')],
    ['sigmoid', activation('sigmoid')],
    ['softplus', activation('softplus')],
    ['silu', activation('silu')],
  ])('is seen, whatever the activation: %s', async (_name, act) => {
    for (const optimizer of [sgd(), adam()]) {
      const program = compileTraining({ model: net(act), loss: crossEntropy(), optimizer, batchSize: 8 })
      const { loss, finite } = await train(program, data, 1e30, [6])
      // Bounded activations keep the weights finite: then the loss tells.
      expect(Number.isNaN(finite) || loss.some(value => value > 1e20)).toBe(true)
    }
  })

  test('one NaN among the weights is seen in `finite`, whatever hides it from the loss', async () => {
    const program = compileTraining({
      model: net(relu()),
      loss: crossEntropy(),
      optimizer: sgd(),
      batchSize: 8,
    })
    const state = initialState(program)
    const kernel = state['conv2d_1/kernel']!.data as Float32Array
    for (const bad of [Number.NaN, Infinity, -Infinity]) {
      const poisoned = {
        ...state,
        'conv2d_1/kernel': { ...state['conv2d_1/kernel']!, data: kernel.with(5, bad) },
      }
      const { finite } = await train(program, data, 0.01, [1], poisoned)
      expect(finite, String(bad)).toBeNaN()
    }
    expect((await train(program, data, 0.01, [1], state)).finite).toBe(0)
  })
})

describe('dropout', () => {
  const images = input('images', 'float32', [50, 4, 4, 25])
  const model = sequential([dropout(0.3, { name: 'drop' }), flatten()], { input: [4, 4, 25] })
  const randomKey = (name: string) => input(`keys/${name}`, 'uint32', [])
  const dropped = buildModel(model, images, { training: true, randomKey }).outputs.get('drop')!
  const ones = hostTensor('float32', images.shape, new Float32Array(20000).fill(1))
  const maskFor = async (word: number) => {
    const [mask] = await evaluate([dropped], {
      images: ones,
      'keys/drop/mask': hostTensor('uint32', [], [word]),
    })
    return [...(mask!.data as Float32Array)]
  }
  const share = (values: readonly number[]) => values.filter(value => value > 0).length / values.length

  test('keeps its share, scales what it keeps, and nothing else', async () => {
    const mask = await maskFor(12345)
    expect(new Set(mask)).toEqual(new Set([0, Math.fround(1 / 0.7)]))
    // Five standard deviations of a share of 20000 draws.
    expect(Math.abs(share(mask) - 0.7)).toBeLessThan(5 * Math.sqrt((0.3 * 0.7) / 20000))
  })

  test('is a function of its key; other keys give independent masks', async () => {
    // Random words, as a trainer makes them: the hash does not spread keys that differ in their highest bits alone.
    const words = randomBits(key(4, 'masks'), 8)
    const masks = await Promise.all([...words].map(maskFor))
    expect(await maskFor(words[0]!)).toEqual(masks[0])
    for (const [i, a] of masks.entries())
      for (const b of masks.slice(i + 1)) {
        const both = a.map((value, n) => value * b[n]!)
        // Independent masks agree on keeping by 0.49.
        expect(Math.abs(share(both) - 0.49)).toBeLessThan(5 * Math.sqrt((0.49 * 0.51) / 20000))
      }
  })

  test('differs by step, by stream and by key, and is absent from evaluation', async () => {
    const net = sequential(
      [flatten(), dropout(0.5), dense({ units: 40 }), dropout(0.5), dense({ units: 3 })],
      {
        input: [4, 4, 1],
      },
    )
    const spec = { model: net, loss: crossEntropy(), optimizer: sgd(), batchSize: 8 }
    const program = compileTraining(spec)
    expect(program.randomKeys).toEqual(['dropout_1/mask', 'dropout_2/mask'])
    const data = noise(8, [4, 4, 1], 3)
    // Nothing is learned and each step sees the same images: only the masks differ.
    const { loss } = await train(program, data, 0, [6])
    expect(new Set(loss).size).toBe(6)
    expect((await train(program, data, 0, [2, 4])).loss).toEqual(loss)

    const evaluation = compileEvaluation(net, crossEntropy(), 8)
    const loaded = await engine.load(evaluation.bytes)
    expect(loaded.inputs.filter(name => name.startsWith('keys/'))).toEqual([])
    const feeds = { ...feedsOf(program, 0, 2, 0, 8), ...initialState(program), ...data }
    const results = await loaded.run({
      feeds: Object.fromEntries(loaded.inputs.map(name => [name, feeds[name as keyof typeof feeds]!])),
    })
    await loaded.release()
    expect(results.loss!.data[0]).toBe(results.loss!.data[1])
  })
})

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
    graph train tiny(steps: int64[], images: uint8[rows, 2, 1, 1], labels: int32[rows], order: int32[steps, 3], scalars: float32[steps, 1], dense_1/kernel: float32[2, 2], optimizer/momentum/dense_1/kernel: float32[2, 2], dense_1/bias: float32[2], optimizer/momentum/dense_1/bias: float32[2]) -> (next/dense_1/kernel: float32[2, 2], next/optimizer/momentum/dense_1/kernel: float32[2, 2], next/dense_1/bias: float32[2], next/optimizer/momentum/dense_1/bias: float32[2], loss: float32[steps], correct: float32[steps], finite: float32[])
      true = bool[] {1}
      end/constant_0 = float32[] {0}
      end/constant_1 = int64[2] {0, 1}
      end/constant_2 = int64[0] {}
      end/constant_3 = int64[1] {0}
      next/dense_1/kernel, next/optimizer/momentum/dense_1/kernel, next/dense_1/bias, next/optimizer/momentum/dense_1/bias, loss, correct = Loop(steps, true, dense_1/kernel, optimizer/momentum/dense_1/kernel, dense_1/bias, optimizer/momentum/dense_1/bias)
        body: train tiny step(iteration: int64[], condition: bool[], step/dense_1/kernel: float32[2, 2], step/optimizer/momentum/dense_1/kernel: float32[2, 2], step/dense_1/bias: float32[2], step/optimizer/momentum/dense_1/bias: float32[2]) -> (step/condition: bool[], step/next/dense_1/kernel: float32[2, 2], step/next/optimizer/momentum/dense_1/kernel: float32[2, 2], step/next/dense_1/bias: float32[2], step/next/optimizer/momentum/dense_1/bias: float32[2], step/loss: float32[], step/correct: float32[])
          constant_0 = float32[] {0.9}
          constant_1 = float32[] {0.5}
          constant_2 = int64[4] {1, 1, 1, 1}
          constant_3 = int64[2] {3, 2}
          constant_4 = int64[2] {3, 1}
          constant_5 = int32[1, 2] {0, 1}
          constant_6 = float32[] {1}
          constant_7 = int64[1] {1}
          constant_8 = float32[] {0.333333}
          constant_9 = int64[1] {3}
          constant_10 = int64[0] {}
          constant_11 = float32[1, 3] {1, 1, 1}
          constant_12 = int64[1] {2}
          constant_13 = int64[1] {0}
          Mul_1 = Mul(step/optimizer/momentum/dense_1/kernel, constant_0)
          Gather_2 = Gather(order, iteration) {axis=0}
          Gather_3 = Gather(images, Gather_2) {axis=0}
          Cast_4 = Cast(Gather_3) {to=1}
          Reshape_5 = Reshape(constant_1, constant_2)
          Mul_6 = Mul(Cast_4, Reshape_5)
          Reshape_7 = Reshape(Mul_6, constant_3)
          MatMul_8 = MatMul(Reshape_7, step/dense_1/kernel)
          Add_9 = Add(MatMul_8, step/dense_1/bias)
          Softmax_10 = Softmax(Add_9) {axis=-1}
          Gather_11 = Gather(labels, Gather_2) {axis=0}
          Reshape_12 = Reshape(Gather_11, constant_4)
          Equal_13 = Equal(Reshape_12, constant_5)
          Cast_14 = Cast(Equal_13) {to=1}
          Sub_15 = Sub(Softmax_10, Cast_14)
          Reshape_16 = Reshape(constant_6, constant_7)
          Reshape_17 = Reshape(constant_8, constant_7)
          Mul_18 = Mul(Reshape_16, Reshape_17)
          Expand_19 = Expand(Mul_18, constant_9)
          Reshape_20 = Reshape(Expand_19, constant_4)
          Mul_21 = Mul(Sub_15, Reshape_20)
          Gemm_22 = Gemm(Reshape_7, Mul_21) {transA=1, transB=0}
          Gather_23 = Gather(scalars, iteration) {axis=0}
          Reshape_24 = Reshape(Gather_23, constant_10)
          Mul_25 = Mul(Gemm_22, Reshape_24)
          step/next/optimizer/momentum/dense_1/kernel = Add(Mul_1, Mul_25)
          step/next/dense_1/kernel = Sub(step/dense_1/kernel, step/next/optimizer/momentum/dense_1/kernel)
          Mul_28 = Mul(step/optimizer/momentum/dense_1/bias, constant_0)
          MatMul_29 = MatMul(constant_11, Mul_21)
          Reshape_30 = Reshape(MatMul_29, constant_12)
          Mul_31 = Mul(Reshape_30, Reshape_24)
          step/next/optimizer/momentum/dense_1/bias = Add(Mul_28, Mul_31)
          step/next/dense_1/bias = Sub(step/dense_1/bias, step/next/optimizer/momentum/dense_1/bias)
          LogSoftmax_34 = LogSoftmax(Add_9) {axis=-1}
          Mul_35 = Mul(Cast_14, LogSoftmax_34)
          ReduceSum_36 = ReduceSum(Mul_35, constant_7) {keepdims=1}
          Reshape_37 = Reshape(ReduceSum_36, constant_9)
          Neg_38 = Neg(Reshape_37)
          ReduceSum_39 = ReduceSum(Neg_38, constant_13) {keepdims=1}
          Mul_40 = Mul(ReduceSum_39, Reshape_17)
          step/loss = Reshape(Mul_40, constant_10)
          ArgMax_42 = ArgMax(Add_9) {axis=-1, keepdims=0}
          Cast_43 = Cast(ArgMax_42) {to=6}
          Equal_44 = Equal(Cast_43, Gather_11)
          Cast_45 = Cast(Equal_44) {to=1}
          ReduceSum_46 = ReduceSum(Cast_45, constant_13) {keepdims=1}
          step/correct = Reshape(ReduceSum_46, constant_10)
          step/condition = Identity(condition)
      end/Mul_1 = Mul(next/dense_1/kernel, end/constant_0)
      end/ReduceSum_2 = ReduceSum(end/Mul_1, end/constant_1) {keepdims=1}
      end/Reshape_3 = Reshape(end/ReduceSum_2, end/constant_2)
      end/Mul_4 = Mul(next/dense_1/bias, end/constant_0)
      end/ReduceSum_5 = ReduceSum(end/Mul_4, end/constant_3) {keepdims=1}
      end/Reshape_6 = Reshape(end/ReduceSum_5, end/constant_2)
      finite = Add(end/Reshape_3, end/Reshape_6)"
  `)
})
