/**
 * Frozen layers and a backbone's own rate in training programs: against Keras, and what the programs leave
 * out.
 */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compileTraining, type TrainSpec } from '../src/compile/train-program.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import { dense, dropout, flatten, relu, rescaling } from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { globalAveragePooling2d } from '../src/nn/layers/pooling.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { adamW, sgd } from '../src/nn/optimizers.ts'
import { l2 } from '../src/nn/regularizers.ts'
import { cosineDecay } from '../src/nn/schedules.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import type { Engine } from '../src/runtime/engine.ts'
import { openEngine } from '../src/runtime/node.ts'
import { hostTensor, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { errorOf } from './error-of.ts'
import { expectClose } from './expect-close.ts'
import { valuesOf } from './reference.ts'
import { initialState, noise, type State, train } from './train-with.ts'

interface Numbers {
  readonly shape: readonly number[]
  readonly data: readonly number[]
}

type Named = Numbers & { readonly name: string }

const golden: {
  readonly settings: {
    readonly inputShape: readonly [number, number, number]
    readonly l2: number
    readonly momentum: number
    readonly learningRate: number
    readonly backboneLearningRate: number
    readonly frozen: readonly string[]
    readonly backbone: readonly string[]
    readonly frozenDropout: number
  }
  readonly initial: readonly Named[]
  readonly steps: readonly { images: Numbers; labels: readonly number[]; loss: number }[]
  readonly final: readonly Named[]
} = JSON.parse(readFileSync(new URL('golden/transfer.json', import.meta.url), 'utf8'))

const camel = (name: string) => name.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase())
const loss = crossEntropy()

let engine: Engine
beforeAll(async () => {
  engine = await openEngine({ threads: 1 })
})
afterAll(() => engine.close())

test('Keras fine-tunes as Fovea: frozen layers with batch normalization, two rates, penalties', async () => {
  const { settings, steps, initial, final } = golden
  const { inputShape, momentum, learningRate, backboneLearningRate, frozen, backbone } = settings
  const kernelRegularizer = l2(settings.l2)
  const model = sequential(
    [
      rescaling({ scale: 1 / 255 }),
      conv2d({ name: 'conv1', filters: 4, kernelSize: 3, padding: 'same', kernelRegularizer }),
      batchNormalization({ name: 'bn1', momentum: 0.9 }),
      relu(),
      conv2d({ name: 'conv2', filters: 6, kernelSize: 3, kernelRegularizer }),
      batchNormalization({ name: 'bn2', momentum: 0.9 }),
      relu(),
      globalAveragePooling2d(),
      dense({ name: 'logits', units: 5, kernelRegularizer }),
    ],
    { input: inputShape },
  )
  const batchSize = steps[0]!.labels.length
  const program = compileTraining({
    model,
    loss,
    optimizer: sgd({ learningRate, momentum }),
    batchSize,
    frozen,
    backbone: { layers: backbone, learningRate: backboneLearningRate },
  })
  const all = steps.flatMap(({ images }) => images.data)
  const data = {
    images: hostTensor('uint8', [all.length / sizeOf(inputShape), ...inputShape], all),
    labels: hostTensor(
      'int32',
      [steps.length * batchSize],
      steps.flatMap(step => step.labels),
    ),
  }
  const start: State = {
    ...initialState(program),
    ...Object.fromEntries(initial.map(t => [camel(t.name), hostTensor('float32', t.shape, t.data)])),
  }
  expect(Object.keys(start).sort()).toEqual(program.state.map(({ name }) => name).sort())
  const trained = await train(engine, program, data, learningRate, [steps.length], start)
  for (const [i, step] of steps.entries()) expect(trained.loss[i]).toBeCloseTo(step.loss, 5)
  for (const { name, shape, data: values } of final)
    expectClose(
      valuesOf(trained.state[camel(name)]!),
      { shape, data: Float64Array.from(values) },
      // Float32 throughout, three steps; weights are of the order of 1.
      1e-6,
      name,
    )
})

describe('frozen layers', () => {
  const model = sequential(
    [
      rescaling({ scale: 1 / 255 }),
      conv2d({ filters: 3, kernelSize: 3 }),
      batchNormalization(),
      flatten(),
      dense({ units: 200, kernelRegularizer: l2(1) }),
      dense({ units: 3 }),
    ],
    { input: [8, 8, 1] },
  )
  const backbone = model.layers.slice(0, -1).map(({ name }) => name)
  const spec: TrainSpec = { model, loss, optimizer: sgd({ momentum: 0.9 }), batchSize: 4 }
  const frozen = compileTraining({ ...spec, frozen: backbone })
  const whole = compileTraining(spec)
  const loopOf = (bytes: Uint8Array) => decodeModel(bytes).graph.nodes.find(({ op }) => op === 'Loop')!
  const bodyOf = (bytes: Uint8Array) =>
    (loopOf(bytes).attributes!.body as { graph: { nodes: readonly { op: string }[] } }).graph.nodes
  const count = (bytes: Uint8Array, ...ops: string[]) =>
    bodyOf(bytes).filter(({ op }) => ops.includes(op)).length

  test('have no slots, no state of the loop, and no backward pass', () => {
    const kinds = (kind: string) =>
      frozen.state.filter(tensor => tensor.kind === kind).map(({ name }) => name)
    expect(kinds('parameter')).toEqual(['dense_2/kernel', 'dense_2/bias'])
    expect(kinds('slot')).toEqual(['optimizer/momentum/dense_2/kernel', 'optimizer/momentum/dense_2/bias'])
    expect(kinds('frozen')).toHaveLength(6)
    expect(Object.values(frozen.keep)).toEqual([...kinds('parameter'), ...kinds('slot')])
    // The packed head and its slots are all that goes from step to step.
    expect(loopOf(frozen.bytes).inputs).toEqual(['steps', 'true', 'packed/parameters', 'packed/momentum'])
    // Three products forwards; backwards the head's kernel, and the sum for its bias.
    const products = ['MatMul', 'Gemm', 'FusedMatMul']
    expect(count(frozen.bytes, ...products)).toBe(5)
    expect(count(whole.bytes, ...products)).toBeGreaterThan(8)
  })

  test('keep their bits, batch normalization its averages', async () => {
    const data = noise(16, [8, 8, 1], 3)
    const start = initialState(frozen)
    const { state } = await train(engine, frozen, data, 0.1, [4], start)
    for (const { name, kind } of frozen.state)
      if (kind === 'frozen' || kind === 'buffer') expect(state[name], name).toEqual(start[name])
      else expect(state[name], name).not.toEqual(start[name])
  })

  test('have no penalty, in training and in evaluation', async () => {
    const data = noise(4, [8, 8, 1], 3)
    const start = initialState(frozen)
    const { loss: trained } = await train(engine, frozen, data, 0.1, [1], start)
    expect(trained[0]).toBeLessThan(5)
    expect((await train(engine, whole, data, 0.1, [1])).loss[0]).toBeGreaterThan(50)
    const evaluate = async (layers: readonly string[]) => {
      const program = await engine.load(compileEvaluation(model, loss, 4, { frozen: layers }).bytes)
      const order = hostTensor('int32', [1, 4], [0, 1, 2, 3])
      const results = await program.run({ feeds: { steps: hostTensor('int64', [], [1]), order } })
      await program.release()
      return toNumbers(results.penalty!)[0]
    }
    expect(await evaluate(backbone)).toBe(0)
    expect(await evaluate([])).toBeGreaterThan(50)
  })

  test("drop out all the same, as Keras's do", async () => {
    expect(golden.settings.frozenDropout).toBeCloseTo(0.5, 1)
    const dropping = sequential([flatten(), dropout(0.5, { name: 'drop' }), dense({ units: 2 })], {
      input: [4, 4, 1],
    })
    const { randomKeys } = compileTraining({ ...spec, model: dropping, frozen: ['drop'] })
    expect(randomKeys).toEqual(['drop/mask'])
  })

  test('that are not there, or are all, are refused', () => {
    const messages = [['dense_3'], model.layers.map(({ name }) => name)].map(layers =>
      errorOf(() => compileTraining({ ...spec, frozen: layers })),
    )
    expect(messages).toMatchInlineSnapshot(`
      [
        "UsageError: unknown layer of "model" "dense_3"; did you mean "dense_1"? known: rescaling_1, conv2d_1, batchNormalization_1, flatten_1, dense_1, dense_2",
        "UsageError: model "model": expected at least one layer to train, received one whose layers with parameters are all frozen",
      ]
    `)
  })
})

describe("a backbone's own rate", () => {
  const model = sequential([flatten(), dense({ units: 30 }), dense({ units: 3 })], { input: [4, 4, 1] })
  const spec: TrainSpec = { model, loss, optimizer: sgd(), batchSize: 4 }
  const backbone = { layers: ['dense_1'], learningRate: 0.001 }

  test('scales a schedule, its peak to the rate', () => {
    const learningRate = cosineDecay({
      initialLearningRate: 0,
      warmupTarget: 0.1,
      warmupSteps: 10,
      decaySteps: 20,
    })
    const program = compileTraining({ ...spec, optimizer: adamW({ learningRate }), backbone })
    const [rate, decay, slowRate, slowDecay] = program.scalars(1, 0.05)
    expect(slowRate).toBeCloseTo(rate! / 100, 12)
    expect(slowDecay).toBeCloseTo(decay! / 100, 12)
  })

  test('of nothing that is trained is refused, and so is a share of 0', () => {
    const messages = [
      { ...spec, backbone, frozen: ['dense_1'] },
      { ...spec, backbone, optimizer: sgd({ learningRate: 0 }) },
      { ...spec, backbone: { ...backbone, learningRate: -1 } },
    ].map(wrong => errorOf(() => compileTraining(wrong)))
    expect(messages).toMatchInlineSnapshot(`
      [
        "UsageError: backbone: expected at least one trained layer to learn at 0.001, received none: dense_1",
        "UsageError: backbone: a rate of its own needs an optimizer's rate above 0, received 0",
        "UsageError: backbone: learningRate must be a number at least 0, received -1",
      ]
    `)
  })
})
