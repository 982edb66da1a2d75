/** Sums over the images of a minibatch of which each thread makes its own, and what they must not be taken for. */
import { describe, expect, test } from 'vitest'
import { compileTraining } from '../src/compile/train-program.ts'
import { dense, flatten } from '../src/nn/layers/core.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { sgd } from '../src/nn/optimizers.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import { planSteps, tasksOf } from '../src/runtime/steps/plan.ts'
import { namesWrittenBy } from '../src/runtime/steps/task.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import { loopModel, type NodeBuilder, nodeBuilder, waves } from './loop-model.ts'
import { expectSame, resultsOf, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

const EXTENT = 128
const shape = [EXTENT, EXTENT]
const crew = { threads: 2, isMeasured: false }
const turned: OnnxNode['attributes'] = { transA: { int: 1 } }

type Emit = (op: string, inputs: string[], attributes?: OnnxNode['attributes']) => string

/** What a step makes of some rows of the data and a hidden value, both matrices. */
interface Made {
  /** What is subtracted from the state. */
  readonly update: string
  /** Default: the hidden value. */
  readonly seen?: { readonly value: string; readonly shape: readonly number[] }
}

function modelOf(build: (emit: Emit, own: NodeBuilder, rows: string, hidden: string) => Made): OnnxModel {
  const own = nodeBuilder()
  const emit: Emit = (...node) => own.emit(...node)[0]!
  const scaled = (value: string) => emit('Mul', [value, own.constant(hostTensor('float32', [], [1 / 32]))])
  const numbers = own.ints(...Array.from({ length: EXTENT }, (_, i) => (i * 3) % EXTENT))
  const rows = emit('Gather', ['data', numbers])
  const hidden = emit('Tanh', [scaled(emit('MatMul', [rows, 's0']))])
  const { update, seen = { value: hidden, shape } } = build(emit, own, rows, hidden)
  own.nodes.push({ op: 'Sub', inputs: ['s0', scaled(update)], outputs: ['n0'], attributes: {} })
  const { nodes, constants: initializers } = own
  return loopModel({ nodes, states: ['a'], shape, data: ['rows', EXTENT], seen, initializers })
}

const sumsOf = (model: OnnxModel): string[] =>
  tasksOf(planSteps(model, crew)!.phases)
    .flatMap(namesWrittenBy)
    .filter(name => name.endsWith('/parts'))

async function expectSameRuns(model: OnnxModel): Promise<void> {
  const [bytes, inputs] = [encodeModel(model), waves(shape, 4)]
  const expected = await resultsOf(whole[1], bytes, inputs)
  const loaded = await stepped[2](bytes, undefined)
  for (let run = 0; run < 10; run++) expectSame(await loaded.run(inputs), expected, 1e-5)
  await loaded.release()
}

const constant = (own: NodeBuilder, extents: readonly number[], of: (i: number) => number) =>
  own.constant(
    hostTensor(
      'float32',
      extents,
      Array.from({ length: extents.reduce((a, b) => a * b) }, (_, i) => of(i)),
    ),
  )

type Build = (emit: Emit, own: NodeBuilder, rows: string, hidden: string) => string
const repeated = (emit: Emit, row: string) =>
  emit('Concat', new Array(EXTENT).fill(row), { axis: { int: 0 } })

const builds: Readonly<Record<string, { readonly sums: number; readonly build: Build }>> = {
  'a product over rows': { sums: 1, build: (emit, _, x, y) => emit('Gemm', [x, y], turned) },
  'rows of equal numbers, put together': {
    sums: 1,
    build: (emit, own, _, y) => repeated(emit, emit('MatMul', [constant(own, [1, EXTENT], () => 0.5), y])),
  },
  'a row of different numbers': {
    sums: 0,
    build: (emit, own, _, y) => repeated(emit, emit('MatMul', [constant(own, [1, EXTENT], Math.cos), y])),
  },
  // Of these the last product is one of sums, over rows that all threads have made.
  'a product of two sums': {
    sums: 1,
    build: (emit, _, x, y) =>
      emit('Gemm', [emit('Gemm', [x, y], turned), emit('Gemm', [y, x], turned)], turned),
  },
  'a product of a sum': {
    sums: 1,
    build: (emit, _, x, y) => emit('Gemm', [emit('Gemm', [x, y], turned), x], turned),
  },
  'columns of a sum': {
    sums: 1,
    build: (emit, own, x, y) =>
      repeated(emit, emit('MatMul', [constant(own, [1, EXTENT], () => 1), emit('Gemm', [x, y], turned)])),
  },
  'a constant on the left': {
    sums: 0,
    build: (emit, own, _, y) => emit('Gemm', [constant(own, shape, Math.cos), y], turned),
  },
  'a constant on the right': {
    sums: 0,
    build: (emit, own, _, y) => emit('Gemm', [y, constant(own, shape, Math.cos)], turned),
  },
  'a bias': {
    sums: 0,
    build: (emit, own, x, y) => emit('Gemm', [x, y, constant(own, [EXTENT], Math.cos)], turned),
  },
  'a right matrix that is transposed too': {
    sums: 0,
    build: (emit, _, x, y) => emit('Gemm', [x, y], { ...turned, transB: { int: 1 } }),
  },
}

test.for(Object.entries(builds))('%s', async ([, { sums, build }]) => {
  const model = modelOf((...given) => ({ update: build(...given) }))
  expect(sumsOf(model)).toHaveLength(sums)
  await expectSameRuns(model)
})

describe('beside the updates', () => {
  test('runs nothing that reads what they write', async () => {
    const model = modelOf((emit, _, rows, hidden) => {
      const across = emit('Transpose', [hidden], { perm: { ints: [1, 0] } })
      const value = emit('Concat', ['s0', across], { axis: { int: 0 } })
      return { update: emit('Gemm', [rows, hidden], turned), seen: { value, shape: [2 * EXTENT, EXTENT] } }
    })
    expect(planSteps(model, crew)!.isSmall).toBe(true)
    expect(sumsOf(model)).toHaveLength(1)
    await expectSameRuns(model)
  })
})

test('data that tasks read in another direction fits nowhere', async () => {
  const model = modelOf((emit, _own, _rows, hidden) => {
    const places = emit('ArgMax', [hidden], { axis: { int: 1 }, keepdims: { int: 0 } })
    return { update: emit('Add', [hidden, emit('Gather', ['data', places], { axis: { int: 1 } })]) }
  })
  expect(planSteps(model, crew)?.isSmall).not.toBe(true)
})

test('a row that the data does not have fails its run, and no other', async () => {
  const program = compileTraining({
    model: sequential([flatten(), dense({ units: 64, activation: 'relu' }), dense({ units: 5 })], {
      input: [28, 28, 1],
      name: 'small',
    }),
    loss: crossEntropy(),
    optimizer: sgd({ momentum: 0.9 }),
    batchSize: 32,
  })
  const inputs = () => ({
    ...noise(64, [28, 28, 1], 5),
    ...initialState(program),
    ...feedsOf(program, 0, 2, 0.01, 64),
  })
  const loaded = await stepped[2](program.bytes, undefined)
  const expected = await loaded.run(inputs())
  const losses = Array.from(expected.loss!.data as Float32Array)
  const order = hostTensor('int32', [2, 32], new Array(64).fill(1000))
  for (let i = 0; i < 3; i++) {
    await expect(loaded.run({ ...inputs(), order })).rejects.toThrow(/a task failed: .*indices/i)
    const { loss } = await loaded.run(inputs())
    expect(Array.from(loss!.data as Float32Array)).toEqual(losses)
  }
  await loaded.release()
})
