/** Evaluation programs run step by step, against ONNX Runtime running the whole loop. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compileTraining } from '../src/compile/train-program.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adam } from '../src/nn/optimizers.ts'
import type { Loader } from '../src/runtime/loaded-program.ts'
import type { Tensors } from '../src/runtime/protocol.ts'
import { evenBatch } from '../src/train/evaluate.ts'
import { hostTensor, type Shape, sizeOf } from '../src/util/host-tensor.ts'
import { key, normal } from '../src/util/random.ts'
import { architectures } from '../src/zoo/index.ts'
import { copies, expectSame, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

const BATCH = 16
const ROWS = 3 * BATCH

/** A network of the zoo as it is trained and evaluated, data for it, and a state that none begins with. */
function prepared(name: string, input: readonly [number, number, number]) {
  const { build } = architectures.find(architecture => architecture.name === name)!
  const model = build(input, 10)
  const training = compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize: BATCH })
  const evaluation = compileEvaluation(model, crossEntropy(), BATCH)
  const buffers = training.state.filter(({ kind }) => kind === 'buffer')
  const learned = Object.fromEntries(
    buffers.map(({ name: buffer, shape }) => [buffer, positive(buffer, shape)] as const),
  )
  return {
    training,
    evaluation,
    data: noise(ROWS, input, 10),
    state: { ...initialState(training), ...learned },
  }
}

/** Variances are positive, and means may be. */
const positive = (name: string, shape: Shape) =>
  hostTensor(
    'float32',
    shape,
    normal(key(3, name), sizeOf(shape)).map(value => 0.5 + Math.abs(value)),
  )

const evaluationFeeds = (steps: number) => ({
  steps: hostTensor('int64', [], [steps]),
  order: hostTensor(
    'int32',
    [steps, BATCH],
    Array.from({ length: steps * BATCH }, (_, i) => (i * 5) % ROWS),
  ),
})

test.each([
  ['singh-brar/lateral-inhibition', [28, 28, 1]],
  ['wang/cnn', [28, 28, 1]],
  ['resnet20', [16, 16, 3]],
  ['visionnet/attention-2', [32, 32, 3]],
  ['xception', [32, 32, 3]],
] as const)('%s: the same up to rounding, on any number of threads', async (name, input) => {
  const { evaluation, data, state } = prepared(name, input)
  const evaluated = async (load: Loader) => {
    const loaded = await load(evaluation.bytes, undefined)
    const known: Tensors = { ...data, ...state, ...evaluationFeeds(2) }
    const inputs = Object.fromEntries(loaded.inputs.map(({ name: each }) => [each, known[each]!]))
    const results = copies(await loaded.run(inputs))
    await loaded.release()
    return results
  }
  const expected = await evaluated(whole[1])
  for (const load of [stepped[1], stepped[2]]) {
    const { predicted, ...sums } = await evaluated(load)
    expect(predicted).toEqual(expected.predicted)
    const { predicted: _, ...expectedSums } = expected
    expectSame(sums, expectedSums, 1e-5)
  }
})

test('between two runs of a training, of its state and of another, changes nothing', async () => {
  const { training, evaluation, data, state } = prepared('singh-brar/lateral-inhibition', [28, 28, 1])
  const trained = async (isEvaluated: boolean) => {
    const own = await stepped[2](training.bytes, undefined)
    const other = await stepped[2](evaluation.bytes, undefined)
    const run = async (from: Tensors, step: number): Promise<Tensors> => {
      const outputs = await own.run({ ...data, ...from, ...feedsOf(training, step, 2, 0.01, ROWS) })
      return Object.fromEntries(
        Object.entries(training.keep).map(([output, name]) => [name, outputs[output]!]),
      )
    }
    const evaluated = async (from: Tensors) => {
      const known: Tensors = { ...data, ...from, ...evaluationFeeds(1) }
      return copies(await other.run(Object.fromEntries(other.inputs.map(({ name }) => [name, known[name]!]))))
    }
    const first = await run(state, 0)
    expect(Object.values(first).some(tensor => other.overwrites(tensor))).toBe(false)
    const losses = isEvaluated ? [await evaluated(first), await evaluated(state), await evaluated(first)] : []
    const last = copies(await run(first, 2))
    await own.release()
    await other.release()
    return { last, losses }
  }
  const { last, losses } = await trained(true)
  expect(last).toEqual((await trained(false)).last)
  expect(losses[0]).toEqual(losses[2])
  expect(losses[0]!.loss).not.toEqual(losses[1]!.loss)
})

describe('images that are evaluated together', () => {
  test('are as many as leave none over, where half as many at least do', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 70_000 }), fc.integer({ min: 2, max: 600 }), (count, most) => {
        const batch = evenBatch(count, most)
        expect(batch).toBeLessThanOrEqual(Math.min(most, count))
        const better = Array.from({ length: most }, (_, i) => i + 1).filter(
          other => 2 * other >= most && count % other === 0,
        )
        const expected = count <= most ? count : (better.at(-1) ?? most)
        expect(batch).toBe(expected)
      }),
    )
  })

  test.each([
    [10_000, 500, 500],
    [10_000, 62, 50],
    [6000, 62, 60],
    [9973, 62, 62],
    [7, 62, 7],
  ])('%i images, at most %i: %i', (count, most, expected) => {
    expect(evenBatch(count, most)).toBe(expected)
  })
})
