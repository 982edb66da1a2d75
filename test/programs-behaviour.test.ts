import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compilePrediction } from '../src/compile/predict-program.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { softmax } from '../src/graph/ops/reduce.ts'
import { input } from '../src/graph/ops/source.ts'
import { buildModel } from '../src/nn/build.ts'
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
import { connect, functional, sequential } from '../src/nn/model.ts'
import { adam, sgd } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import { type HostTensor, hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { key, randomBits } from '../src/util/random.ts'
import { onnxLayers } from '../src/weights/onnx.ts'
import { errorOf } from './error-of.ts'
import { evaluate } from './evaluate.ts'
import { expectClose } from './expect-close.ts'
import { valuesOf } from './reference.ts'
import { feedsOf, initialState, noise, type State, train } from './train-with.ts'

let engine: Engine
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
})
afterAll(() => engine.close())

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
    state = (await train(engine, training, data, 0.01, [12])).state
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
    const losses = rows.map((row, n) => -Math.log(row[labels[n]!]!))
    for (const [n, loss] of toNumbers(results.loss!).entries()) expect(loss).toBeCloseTo(losses[n]!, 5)
    expect(toNumbers(results.correct!)).toEqual(predicted.map((label, n) => (label === labels[n] ? 1 : 0)))
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

  test('its dense layers can be read again, also right after a rescaling', () => {
    const model = sequential(
      [rescaling({ scale: 1 / 255 }), flatten(), dense({ units: 4 }), dense({ units: 2 })],
      {
        input: [4, 4, 1],
      },
    )
    const { bytes } = compilePrediction(
      model,
      initialState(compileTraining({ model, loss, optimizer: sgd(), batchSize: 1 })),
    )
    const layers = onnxLayers(bytes, 'own.onnx')
    expect(layers.map(({ kind, tensors }) => [kind, ...tensors.map(({ tensor }) => tensor.shape)])).toEqual([
      ['dense', [16, 4], [4]],
      ['dense', [4, 2], [2]],
    ])
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
      const { loss, finite } = await train(engine, program, data, 1e30, [6])
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
      const { finite } = await train(engine, program, data, 0.01, [1], poisoned)
      expect(finite, String(bad)).toBeNaN()
    }
    expect((await train(engine, program, data, 0.01, [1], state)).finite).toBe(0)
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
    // Random words, as a trainer makes them: the hash does not spread keys that differ in their highest bits
    // alone.
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
    const { loss } = await train(engine, program, data, 0, [6])
    expect(new Set(loss).size).toBe(6)
    expect((await train(engine, program, data, 0, [2, 4])).loss).toEqual(loss)

    const evaluation = compileEvaluation(net, crossEntropy(), 8)
    const loaded = await engine.load(evaluation.bytes)
    expect(loaded.inputs.filter(name => name.startsWith('keys/'))).toEqual([])
    const feeds = { ...feedsOf(program, 0, 2, 0, 8), ...initialState(program), ...data }
    const results = await loaded.run({
      feeds: Object.fromEntries(loaded.inputs.map(name => [name, feeds[name as keyof typeof feeds]!])),
    })
    await loaded.release()
    const losses = toNumbers(results.loss!)
    expect(losses).toHaveLength(16)
    expect(losses.slice(8)).toEqual(losses.slice(0, 8))
  })
})
