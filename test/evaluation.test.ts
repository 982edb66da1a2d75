/** Evaluation programs run step by step, against ONNX Runtime running the whole loop. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adam } from '../src/nn/optimizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxNode } from '../src/onnx/model.ts'
import type { Loader } from '../src/runtime/loaded-program.ts'
import { openEngine } from '../src/runtime/node.ts'
import type { Tensors } from '../src/runtime/protocol.ts'
import { type Evaluation, Evaluator, minibatchOf, mostImages } from '../src/train/evaluate.ts'
import { type HostTensor, hostTensor, type Shape, sizeOf, toNumbers } from '../src/util/host-tensor.ts'
import { key, normal } from '../src/util/random.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { loopModel, nodeBuilder, waves } from './loop-model.ts'
import { copies, expectSame, resultsOf, stepped, whole, worstOf } from './step-runs.ts'
import { feedsOf, initialState, noise, stateAfter } from './train-with.ts'

const BATCH = 16
const ROWS = 3 * BATCH
/** Of the largest value. */
const ROUNDING = 1e-5

/** A network of the zoo as it is trained and evaluated, data for it, and a state that none begins with. */
function prepared(name: string, input: readonly [number, number, number]) {
  const { build } = architectureNamed(name)
  const model = build(input, 10)
  const training = compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize: BATCH })
  const evaluation = compileEvaluation(model, crossEntropy(), BATCH)
  const buffers = training.state.filter(({ kind }) => kind === 'buffer')
  const learned = Object.fromEntries(
    buffers.map(({ name: buffer, shape }) => [buffer, averages(buffer, shape)]),
  )
  const state: Tensors = { ...initialState(training), ...learned }
  const taken = decodeModel(evaluation.bytes).graph.inputs
  /** What an evaluation takes of all that there is. */
  const inputs = (known: Tensors): Tensors =>
    Object.fromEntries(taken.map(({ name: each }) => [each, known[each]!]))
  return { model, training, evaluation, data: noise(ROWS, input, 10), state, inputs }
}

/** Such that what depends on the image neither fades nor grows from one normalization to the next. */
function averages(name: string, shape: Shape): HostTensor {
  const values = normal(key(3, name), sizeOf(shape))
  const isVariance = name.endsWith('Variance')
  return hostTensor(
    'float32',
    shape,
    values.map(value => (isVariance ? 0.1 + 0.2 * Math.abs(value) : 0.1 * value)),
  )
}

const evaluationFeeds = (steps: number) => ({
  steps: hostTensor('int64', [], [steps]),
  order: hostTensor(
    'int32',
    [steps, BATCH],
    Array.from({ length: steps * BATCH }, (_, i) => (i * 5) % ROWS),
  ),
})

/** Predictions are the same, and the rest is up to rounding. */
function expectAlike(found: Tensors, expected: Tensors) {
  const { predicted, ...sums } = expected
  expect(found.predicted).toEqual(predicted)
  const { predicted: _, ...others } = found
  expectSame(others, sums, ROUNDING)
}

test.each([
  ['singh-brar/lateral-inhibition', [28, 28, 1]],
  ['wang/cnn', [28, 28, 1]],
  ['resnet20', [16, 16, 3]],
  ['visionnet/attention-2', [32, 32, 3]],
  ['xception', [32, 32, 3]],
] as const)('%s: the same up to rounding, on any number of threads', async (name, input) => {
  const { evaluation, data, state, inputs } = prepared(name, input)
  const known = inputs({ ...data, ...state, ...evaluationFeeds(2) })
  const results = (load: Loader, all: Tensors) => resultsOf(load, evaluation.bytes, all)
  const expected = await results(whole[1], known)
  for (const load of Object.values(stepped)) expectAlike(await results(load, known), expected)
  // Or it would say nothing about what comes before the last layer.
  const black = { ...data.images, data: new Uint8Array(sizeOf(data.images.shape)) }
  const unseen = await results(whole[1], { ...known, images: black })
  expect(worstOf(expected.loss!, unseen.loss!)).toBeGreaterThan(10 * ROUNDING)
})

test.each([
  ['singh-brar/lateral-inhibition', [28, 28, 1]],
  ['wang/cnn', [28, 28, 1]],
  ['visionnet/attention-2', [32, 32, 3]],
] as const)('%s: between two runs of a training, of its state and of another', async (name, input) => {
  const { training, evaluation, data, state, inputs } = prepared(name, input)
  const reference = await whole[1](evaluation.bytes, undefined)
  const trained = async (isEvaluated: boolean) => {
    const own = await stepped[2](training.bytes, undefined)
    const other = await stepped[2](evaluation.bytes, undefined)
    const run = async (from: Tensors, step: number): Promise<Tensors> => {
      const outputs = await own.run({ ...data, ...from, ...feedsOf(training, step, 2, 0.01, ROWS) })
      return stateAfter(training, outputs)
    }
    const first = await run(state, 0)
    // It need not be copied away.
    expect(Object.values(first).some(tensor => other.overwrites(tensor))).toBe(false)
    expect(Object.values(first).some(tensor => own.overwrites(tensor))).toBe(true)
    for (const from of isEvaluated ? [first, state, first] : []) {
      const known = { ...data, ...evaluationFeeds(1) }
      const found = copies(await other.run(inputs({ ...known, ...from })))
      expectAlike(found, await reference.run(inputs({ ...known, ...copies(from) })))
    }
    const last = copies(await run(first, 2))
    await own.release()
    await other.release()
    return last
  }
  expect(await trained(true)).toEqual(await trained(false))
  await reference.release()
})

test('what an evaluation leaves stays when the next one leaves it under another name', async () => {
  const { evaluation, data, state } = prepared('wang/cnn', [28, 28, 1])
  const engine = await openEngine({ threads: 2 })
  try {
    const loaded = await engine.load(evaluation.bytes)
    await engine.write({ ...data, ...state })
    await loaded.run({ feeds: evaluationFeeds(1), keep: { penalty: 'first' } })
    const before = await engine.read(['first'])
    const name = 'conv1/kernel'
    const { dtype, shape, data: values } = state[name]!
    await engine.write({ [name]: { dtype, shape, data: (values as Float32Array).map(value => 2 * value) } })
    await loaded.run({ feeds: evaluationFeeds(1), keep: { penalty: 'second' } })
    expect(await engine.read(['first'])).toEqual(before)
    expect(toNumbers((await engine.read(['second'])).second!)[0]).toBeGreaterThan(
      toNumbers(before.first!)[0]!,
    )
  } finally {
    await engine.close()
  }
})

test('what a run left may enter the next one, which reads it at the end', async () => {
  const shape = [256, 256]
  const { nodes, constants, emit } = nodeBuilder()
  let value = 'data'
  for (const op of ['Neg', 'Relu', 'Neg', 'Abs', 'Sqrt', 'Neg']) [value] = emit(op, [value]) as [string]
  const model = loopModel({
    nodes,
    states: [],
    shape: [],
    data: shape,
    seen: { value, shape },
    initializers: constants,
  })
  // It reads and writes at places that are far from each other.
  const turn: OnnxNode = {
    op: 'Transpose',
    inputs: ['data'],
    outputs: ['turned'],
    attributes: { perm: { ints: [1, 0] } },
  }
  const { graph } = model
  const bytes = encodeModel({
    ...model,
    graph: {
      ...graph,
      nodes: [...graph.nodes, turn],
      outputs: [...graph.outputs, { name: 'turned', dtype: 'float32', shape }],
    },
  })
  const { a: _, ...inputs } = waves(shape, 2)
  const twice = async (load: Loader) => {
    const loaded = await load(bytes, undefined)
    const { turned } = await loaded.run(inputs)
    const results = copies(await loaded.run({ ...inputs, data: turned! }))
    await loaded.release()
    return results
  }
  expect(await twice(stepped[2])).toEqual(await twice(whole[1]))
})

describe('images that are evaluated together', () => {
  test('are in as few minibatches as of the most, with few images to fill them up', () => {
    const units = fc.integer({ min: 1, max: 20 })
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70_000 }), units, (count, unit) => {
        const most = 32 * unit
        const batch = minibatchOf(count, most)
        const steps = Math.ceil(count / most)
        expect(batch).toBeLessThanOrEqual(most)
        expect(Math.ceil(count / batch)).toBe(steps)
        expect(steps * (batch - 1)).toBeLessThan(1.125 * (count + steps))
        // Where there are many, minibatches are whole.
        if (count > 8 * most) expect(batch % 32).toBe(0)
      }),
    )
  })

  /** With an evaluator of a small network, whose state and data its engine has. */
  async function evaluating(use: (of: (indices: readonly number[]) => Promise<Evaluation>) => Promise<void>) {
    const { model, data, state } = prepared('singh-brar/basic', [28, 28, 1])
    const engine = await openEngine({ threads: 2 })
    const evaluator = new Evaluator(engine, { model, loss: crossEntropy() })
    try {
      await engine.write({ ...data, ...state })
      await use(indices =>
        evaluator.evaluate({ images: 'images', labels: 'labels' }, Int32Array.from(indices)),
      )
    } finally {
      await evaluator.release()
      await engine.close()
    }
  }

  test('count once each, however many fill the last minibatch', () =>
    evaluating(async of => {
      const numbers = Array.from({ length: ROWS }, (_, i) => (i * 7) % ROWS)
      const all = await of(numbers)
      const parts = [await of(numbers.slice(0, 5)), await of(numbers.slice(5))]
      const mean = (figure: 'loss' | 'accuracy') =>
        parts.reduce((sum, part) => sum + part.images * part[figure], 0) / ROWS
      expect(parts.map(({ images }) => images)).toEqual([5, ROWS - 5])
      expect([...all.predicted]).toEqual(parts.flatMap(({ predicted }) => [...predicted]))
      expect(all.accuracy).toBeCloseTo(mean('accuracy'), 12)
      expect(all.loss).toBeCloseTo(mean('loss'), 5)
    }))

  test.each([
    [10_000, 512, 512],
    [10_000, 128, 128],
    [6000, 128, 128],
    [130, 128, 65],
    [33, 32, 17],
    [100, 128, 100],
    [7, 128, 7],
  ])('%i images, at most %i: %i', (count, most, expected) => {
    expect(minibatchOf(count, most)).toBe(expected)
  })

  test.for([
    ['bassas/mlp-3', [28, 28, 1], 512],
    ['singh-brar/basic', [28, 28, 1], 128],
    ['vgg16', [64, 64, 3], 64],
    ['vgg16', [224, 224, 3], 32],
  ] as const)('of %s and %j are at most %i', ([name, shape, most]) => {
    const { build } = architectureNamed(name)
    expect(mostImages(build(shape, 10))).toBe(most)
  })

  test('are at least one', () =>
    evaluating(async of => {
      await expect(of([])).rejects.toThrow('at least one image, received none')
    }))
})
