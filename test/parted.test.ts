/** What runs part by part, against ONNX Runtime running every node whole: the same up to rounding. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileTraining } from '../src/compile/train-program.ts'
import { pixelAttention } from '../src/nn/brain/self-attention.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import { dense, flatten, rescaling } from '../src/nn/layers/core.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { sgd } from '../src/nn/optimizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import { kernelModule } from '../src/runtime/steps/code.ts'
import { StepMemory } from '../src/runtime/steps/memory.ts'
import { NativeRuntime } from '../src/runtime/steps/onnxruntime.ts'
import type { PartedGraph } from '../src/runtime/steps/parted-graph.ts'
import { planSteps, tasksOf } from '../src/runtime/steps/plan.ts'
import { isParted } from '../src/runtime/steps/task.ts'
import { Team } from '../src/runtime/steps/team.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { loopModel, type NodeBuilder, nodeBuilder, waves } from './loop-model.ts'
import { expectSame, resultsOf, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

function partedOf(model: OnnxModel, crew = { threads: 2, isMeasured: false }): PartedGraph[] {
  const { phases } = planSteps(model, crew)!
  return tasksOf(phases).filter(isParted)
}

/** Those for gradients of attention. */
const backwardOf = (model: OnnxModel, layer = 'pixelAttention') =>
  partedOf(model).filter(({ graph }) =>
    graph.nodes.some(({ name = '' }) => name.includes(`backward/${layer}`)),
  )

describe('attention among positions', () => {
  const attending = (extent: number) =>
    compileTraining({
      model: sequential(
        [
          rescaling({ scale: 1 / 255 }),
          conv2d({ filters: 32, kernelSize: 3, padding: 'same' }),
          pixelAttention(),
          flatten(),
          dense({ units: 3 }),
        ],
        { input: [extent, extent, 3], name: 'small' },
      ),
      loss: crossEntropy(),
      optimizer: sgd({ momentum: 0.9 }),
      batchSize: 8,
    })
  const model = decodeModel(attending(16).bytes)

  test('goes image by image, forward and backward', () => {
    const chains = partedOf(model).map(({ parts, graph }) => ({
      parts,
      ops: graph.nodes.map(({ op }) => op).join(),
    }))
    expect(chains).toContainEqual({ parts: 8, ops: expect.stringMatching(/MatMul.*Softmax.*MatMul/) })
    expect(chains).toContainEqual({ parts: 8, ops: expect.stringMatching(/ReduceSum.*MatMul.*Mul.*MatMul/) })
    expect(backwardOf(model)).toHaveLength(1)
    // Scores and their gradients are in no memory but a part's own, but for what the backward pass reads.
    const scores = partedOf(model)
      .flatMap(({ graph }) => graph.outputs)
      .filter(({ shape }) => shape!.join() === '1,256,256')
    expect(scores.map(({ name }) => name)).toEqual([expect.stringContaining('Softmax')])
  })

  test('on more threads than there are parts, and where nodes are measured, not so', () => {
    expect(partedOf(model, { threads: 9, isMeasured: false })).toEqual([])
    const measured = partedOf(model, { threads: 2, isMeasured: true })
    expect(measured.length).toBeGreaterThan(2)
    expect(measured.map(({ graph }) => graph.nodes.length)).toEqual(measured.map(() => 1))
  })

  // Of an image of 15 x 15 the scores are an odd number of values: no part may begin where they end.
  test.for([16, 15])('learns the same, of images of %s pixels a side', async extent => {
    const program = attending(extent)
    expect(partedOf(decodeModel(program.bytes)).length).toBeGreaterThan(1)
    const inputs = {
      ...noise(64, [extent, extent, 3], 3),
      ...initialState(program),
      ...feedsOf(program, 0, 3, 0.01, 64),
    }
    const expected = await resultsOf(whole[1], program.bytes, inputs)
    for (const load of Object.values(stepped))
      expectSame(await resultsOf(load, program.bytes, inputs), expected, 2e-5)
  })
})

describe.for([128, 127])('any batched products of %s rows', extent => {
  const shape = [8, extent, extent]

  /** Of nodes of one output each. */
  interface Builder extends Omit<NodeBuilder, 'emit'> {
    readonly emit: (op: string, inputs: string[], attributes?: OnnxNode['attributes']) => string
  }

  const fused = (b: Builder, x: string, y: string, flags: OnnxNode['attributes']) =>
    b.emit('Mul', [b.emit('FusedMatMul', [x, y], flags), b.constant(hostTensor('float32', [], [1 / 16]))])

  /** Each makes one value of the shape of all from two others. */
  const recipes: Record<string, (b: Builder, x: string, y: string) => string> = {
    product: (b, x, y) => fused(b, x, y, {}),
    left: (b, x, y) => fused(b, x, y, { transA: { int: 1 } }),
    right: (b, x, y) => fused(b, x, y, { transB: { int: 1 } }),
    softmax: (b, x) => b.emit('Softmax', [x], { axis: { int: -1 } }),
    add: (b, x, y) => b.emit('Add', [x, y]),
    multiply: (b, x, y) => b.emit('Mul', [x, y]),
    centred(b, x) {
      const sums = b.emit('ReduceSum', [x, b.ints(-1)], { keepdims: { int: 1 } })
      return b.emit('Sub', [x, b.emit('Mul', [sums, b.constant(hostTensor('float32', [], [1 / extent]))])])
    },
    beside(b, x, y) {
      const ones = b.constant(hostTensor('float32', [8, extent, 1], new Array(8 * extent).fill(1)))
      const [p, q] = [x, y].map(name => b.emit('Concat', [name, ones], { axis: { int: 2 } })) as [
        string,
        string,
      ]
      return fused(b, p, q, { transB: { int: 1 } })
    },
    other(b, x) {
      const rows = Array.from({ length: 8 * extent }, (_, i) => Math.cos(i))
      const column = b.constant(hostTensor('float32', [8, extent, 1], rows))
      return b.emit('Mul', [x, column])
    },
    one: (b, x, y) =>
      fused(b, x, b.emit('Slice', [y, b.ints(2), b.ints(3), b.ints(0)]), { transA: { int: 0 } }),
    turned: (b, x) => b.emit('Transpose', [x], { perm: { ints: [0, 2, 1] } }),
    across(b, x) {
      const turned = b.emit('Transpose', [x], { perm: { ints: [1, 0, 2] } })
      return b.emit('Reshape', [turned, b.ints(...shape)])
    },
    // A value that is made in parts, and read whole beside the parts that it is made of.
    whole(b, x) {
      const all = b.emit('Reshape', [fused(b, x, x, {}), b.ints(extent, 8 * extent)])
      return b.emit('Slice', [fused(b, x, all, {}), b.ints(extent), b.ints(2 * extent), b.ints(2)])
    },
    finer(b, x, y) {
      if (extent % 2 !== 0) return b.emit('Add', [x, y])
      const [p, q] = [x, y].map(name => b.emit('Reshape', [name, b.ints(16, extent / 2, extent)])) as [
        string,
        string,
      ]
      const square = fused(b, p, q, { transB: { int: 1 } })
      return b.emit('Reshape', [fused(b, square, p, {}), b.ints(...shape)])
    },
  }
  const names = Object.keys(recipes)

  function model(choices: readonly (readonly [number, number, number])[]): OnnxModel {
    const own = nodeBuilder()
    const b: Builder = { ...own, emit: (...node) => own.emit(...node)[0]! }
    const values = ['s0', b.emit('Mul', ['data', 's0']), b.emit('Add', ['data', 's0'])]
    for (const [which, x, y] of choices)
      values.push(
        recipes[names[which % names.length]!]!(b, values[x % values.length]!, values[y % values.length]!),
      )
    b.nodes.push({ op: 'Sub', inputs: ['s0', values.at(-1)!], outputs: ['n0'], attributes: {} })
    return loopModel({
      nodes: b.nodes,
      states: ['a'],
      shape,
      data: shape,
      seen: { value: values.at(-2)!, shape },
      initializers: b.constants,
    })
  }

  test('the same as the whole loop', async () => {
    let [parted, chained] = [0, 0]
    const choices = fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat()), { minLength: 3, maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(choices, async chosen => {
        const made = model(chosen)
        const graphs = partedOf(made)
        parted += graphs.length
        chained += graphs.filter(({ graph }) => graph.nodes.length > 2).length
        const inputs = waves(shape, 1)
        const bytes = encodeModel(made)
        const expected = await resultsOf(whole[1], bytes, inputs)
        expectSame(await resultsOf(stepped[2], bytes, inputs), expected, 1e-4)
      }),
      { numRuns: 30, seed: 5 },
    )
    expect(parted).toBeGreaterThan(30)
    expect(chained).toBeGreaterThan(15)
  })
})

test.each(['attention1', 'attention2', 'attention3'])(
  'gradients of %s are one chain for each image',
  layer => {
    const model = architectureNamed('visionnet/attention-2').build([32, 32, 3], 10)
    const { bytes } = compileTraining({ model, loss: crossEntropy(), optimizer: sgd({}), batchSize: 32 })
    expect(backwardOf(decodeModel(bytes), layer)).toHaveLength(1)
  },
)

test('what makes large attention weights again for the gradient is part of what reads them', () => {
  const model = sequential(
    [rescaling({ scale: 1 / 255 }), pixelAttention(), flatten(), dense({ units: 3 })],
    {
      input: [32, 32, 4],
      name: 'large',
    },
  )
  const { bytes } = compileTraining({ model, loss: crossEntropy(), optimizer: sgd({}), batchSize: 32 })
  const backward = backwardOf(decodeModel(bytes))
  const weights = backward.flatMap(({ graph, inputs }) => [
    ...graph.outputs.map(({ shape }) => shape!.join()),
    ...inputs.flatMap((_, i) => graph.inputs[i]!.shape!.join()),
  ])
  expect(backward).toHaveLength(1)
  expect(weights).not.toContain('1,1024,1024')
  expect(backward[0]!.graph.nodes.filter(({ op }) => op === 'Softmax')).toHaveLength(1)
})

test('a part that fails, on whichever thread, fails the run with its reason, and at once', async () => {
  const memory = new StepMemory()
  const team = new Team(memory, 2)
  const runtime = new NativeRuntime()
  const info = (name: string) => ({ name, dtype: 'float32' as const, shape: [64, 64] })
  const node = { op: 'MatMul', inputs: ['x', 'x'], outputs: ['y'], attributes: {} }
  const graph = { name: 'part', nodes: [node], initializers: [], inputs: [info('x')], outputs: [info('y')] }
  const bytes = encodeModel({ irVersion: 9, producer: 'test', opsets: [{ domain: '', version: 18 }], graph })
  const session = runtime.session(bytes, { threads: 1 })
  const parts = 8
  const tensor = (name: string, shape: readonly number[]) => {
    const data = memory.floats(memory.place(name, 4 * 64 * 64), shape[0]! * shape[1]!)
    return { dtype: 'float32' as const, shape, data }
  }
  // The last is another thread's, and of a shape that the session refuses.
  const bindings = Array.from({ length: parts }, (_, i) =>
    session.bind(
      { x: tensor(`x${i}`, i === parts - 1 ? [32, 32] : [64, 64]) },
      { y: tensor(`y${i}`, [64, 64]) },
    ),
  )
  const task: PartedGraph = {
    name: 'x',
    op: 'X',
    parts,
    graph,
    inputs: [],
    outputs: [],
    operands: [],
    work: 1e7,
  }
  const calls = { ...runtime.addresses, parts: new Map([[0, bindings.map(({ call }) => call)]]) }
  const program = team.load(
    kernelModule([], () => 0, false),
    [[task]],
    calls,
  )
  const began = Date.now()
  expect(() => program.run(0, 1)).toThrow(/a task failed: .*invalid dimensions/i)
  expect(() => program.run(0, 1)).toThrow(/a task failed/)
  expect(Date.now() - began).toBeLessThan(30_000)
  for (const binding of bindings) binding.release()
  session.release()
  await team.close()
})
