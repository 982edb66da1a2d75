/** Steps that threads share by rows of the minibatch, against ONNX Runtime running the whole loop. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compileTraining, type TrainProgram } from '../src/compile/train-program.ts'
import type { Layer } from '../src/nn/layer.ts'
import { dense, dropout, flatten, rescaling } from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { adam, adamW, type Optimizer, sgd } from '../src/nn/optimizers.ts'
import { l1, l2 } from '../src/nn/regularizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import type { Loader } from '../src/runtime/loaded-program.ts'
import { openEngine } from '../src/runtime/node.ts'
import type { PartedGraph } from '../src/runtime/steps/parted-graph.ts'
import { planSteps, type StepPlan, tasksOf } from '../src/runtime/steps/plan.ts'
import { steppedLoader } from '../src/runtime/steps/stepped.ts'
import { isKernel, isParted, namesReadBy } from '../src/runtime/steps/task.ts'
import { hostTensor } from '../src/util/host-tensor.ts'
import { architectureNamed } from '../src/zoo/index.ts'
import { loopModel, type NodeBuilder, nodeBuilder, waves } from './loop-model.ts'
import { expectSame, resultsOf, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

const ROWS = 64
const SIZE = [28, 28, 1] as const
const CLASSES = 5
/** Of the largest value, after some steps. */
const ROUNDING = 2e-5

/** For programs that may have nothing for tasks. */
const steppedOrWhole = steppedLoader(2, whole[1])

const perceptron = (hidden: readonly Layer[]) =>
  sequential(
    [
      rescaling({ scale: 1 / 255, offset: -0.5 }),
      flatten(),
      ...hidden,
      dense({ units: CLASSES, name: 'logits' }),
    ],
    { input: SIZE, name: 'perceptron' },
  )

const training = (hidden: readonly Layer[], optimizer: Optimizer = sgd({ momentum: 0.9 }), batchSize = 32) =>
  compileTraining({ model: perceptron(hidden), loss: crossEntropy(), optimizer, batchSize })

const inputsOf = (program: TrainProgram) => ({
  ...noise(ROWS, SIZE, CLASSES),
  ...initialState(program),
  ...feedsOf(program, 0, 4, 0.005, ROWS),
})

const trained = (load: Loader, program: TrainProgram) => resultsOf(load, program.bytes, inputsOf(program))

const planOf = (bytes: Uint8Array, threads = 2, isMeasured = false): StepPlan =>
  planSteps(decodeModel(bytes), { threads, isMeasured })!

/** The graphs of each stage: what they are named after, how many parts they have, and their operators. */
function graphsOf({ phases }: StepPlan): PartedGraph[][] {
  const stages = phases.flatMap(phase => ('stages' in phase ? phase.stages : []))
  return stages.map(tasks => tasks.filter(isParted))
}

const opsOf = ({ graph }: PartedGraph): string[] => graph.nodes.map(({ op }) => op)

describe('bassas/mlp-3', () => {
  const model = architectureNamed('bassas/mlp-3').build([28, 28, 1], 10)
  const compiled = (batchSize: number) =>
    compileTraining({ model, loss: crossEntropy(), optimizer: adam(), batchSize })
  const program = compiled(32)

  // Of 50 images, parts of labels and of losses begin at no multiple of 16 bytes.
  test.for([32, 50])(
    'is one phase of tasks after what takes the numbers of the images, %i of them',
    batchSize => {
      const plan = planOf(compiled(batchSize).bytes)
      expect(plan.isSmall).toBe(true)
      expect(plan.phases.map(phase => ('graph' in phase ? 'graph' : 'stages'))).toEqual(['graph', 'stages'])
      // Each thread takes its own images.
      const taken = plan.phases.flatMap(phase => ('graph' in phase ? phase.graph.nodes : []))
      expect(taken.some(({ inputs }) => inputs.includes('images') || inputs.includes('labels'))).toBe(false)
      const [own, last] = graphsOf(plan)
      // Forward and backward, and gradients of weights: of each thread's own images.
      expect(own!.map(({ parts }) => parts)).toEqual([2])
      expect(own![0]!.inputs).toContainEqual({ tensor: 'images', isWhole: true })
      expect(opsOf(own![0]!).filter(op => op === 'MatMul' || op === 'Gemm')).toHaveLength(15)
      expect(own![0]!.outputs.filter(({ tensor }) => tensor.endsWith('/parts'))).toHaveLength(4)
      // The loss of all images runs beside the updates, which add up what both threads made.
      expect(last!.map(({ parts }) => parts)).toEqual([1])
      const stages = plan.phases.flatMap(phase => ('stages' in phase ? phase.stages : []))
      expect(stages).toHaveLength(2)
      expect(stages.at(-1)!.filter(isKernel)).toHaveLength(4)
      const kernels = tasksOf(plan.phases).filter(isKernel)
      expect(
        kernels.map(kernel => namesReadBy(kernel).filter(name => name.endsWith('/parts')).length),
      ).toEqual([1, 1, 1, 1])
    },
  )

  test('has gradients by columns where there are too many threads for so few images', () => {
    const graphs = graphsOf(planOf(program.bytes, 4)).flat()
    const gradient = graphs.find(({ name }) => name === 'backward/hidden1/Gemm_57')!
    expect([gradient.parts, opsOf(gradient)]).toEqual([4, ['Slice', 'Gemm']])
  })

  test('is run by threads that share each node where most of it would be of one thread, or there is only one', () => {
    const dense = architectureNamed('korssjoen/dense').build([28, 28, 1], 10)
    // Four images a thread are too few to read all weights for.
    const few = compileTraining({ model: dense, loss: crossEntropy(), optimizer: adam(), batchSize: 8 })
    expect(planOf(few.bytes).isSmall).toBe(false)
    expect(planOf(program.bytes, 1).isSmall).toBe(false)
    expect(planOf(compiled(128).bytes).isSmall).toBe(true)
    const partsOn = (threads: number) => graphsOf(planOf(program.bytes, threads))[0]?.[0]?.parts
    expect([2, 3, 4, 6, 8, 10].map(partsOn)).toEqual([2, 2, 4, 4, 4, 4])
  })

  test('has each node by itself where nodes are measured', () => {
    const graphs = graphsOf(planOf(program.bytes, 2, true)).flat()
    const names = new Set(graphs.map(({ name }) => name))
    expect(names.size).toBe(graphs.length)
    expect(graphs.find(({ name }) => name === 'forward/hidden1/Add_10')).toMatchObject({
      op: 'Add',
      parts: 2,
    })
  })

  test('of other kinds of networks is none', () => {
    const wang = architectureNamed('wang/cnn').build([28, 28, 1], 10)
    const { bytes } = compileTraining({ model: wang, loss: crossEntropy(), optimizer: adam(), batchSize: 32 })
    expect(planOf(bytes).isSmall).toBe(false)
  })
})

const networks: Readonly<Record<string, TrainProgram>> = {
  'a hidden layer': training([dense({ units: 64, activation: 'relu' })]),
  'units of other kinds': training([
    dense({ units: 40, activation: 'tanh' }),
    dense({ units: 36, activation: 'sigmoid' }),
    dense({ units: 32, activation: 'leakyRelu' }),
    dense({ units: 32, activation: 'softmax' }),
  ]),
  'dropout and batch normalization': training([
    dense({ units: 48, activation: 'relu' }),
    batchNormalization({ momentum: 0.5 }),
    dropout(0.3),
    dense({ units: 32, activation: 'elu' }),
  ]),
  'penalties and gradients clipped as a whole': training(
    [
      dense({ units: 64, activation: 'relu', kernelRegularizer: l2(1e-2) }),
      dense({ units: 32, activation: 'relu', kernelRegularizer: l1(1e-3) }),
    ],
    adamW({ weightDecay: 0.1, globalClipNorm: 0.5 }),
  ),
  'gradients clipped each': training([dense({ units: 64, activation: 'relu' })], adam({ clipNorm: 0.1 })),
  'a large penalty': training([dense({ units: 128, kernelRegularizer: l2(1e-2) })], sgd()),
}

describe('the same up to rounding', () => {
  test.for(Object.entries(networks))('%s', async ([, program]) => {
    expect(planOf(program.bytes).isSmall).toBe(true)
    const expected = await trained(whole[1], program)
    expectSame(await trained(stepped[2], program), expected, ROUNDING)
  })

  test('in three parts', async () => {
    const program = training([dense({ units: 48, activation: 'relu' })], sgd({ momentum: 0.9 }), 48)
    expect(graphsOf(planOf(program.bytes, 3))[0]![0]!.parts).toBe(3)
    expectSame(await trained(stepped[3], program), await trained(whole[1], program), ROUNDING)
  })

  test('in parts that begin at no multiple of 16 bytes, the same bits wherever the program lies', async () => {
    const program = training([dense({ units: 50, activation: 'relu' })], sgd({ momentum: 0.9 }), 50)
    expect(planOf(program.bytes).isSmall).toBe(true)
    const found = await trained(stepped[2], program)
    expectSame(found, await trained(whole[1], program), ROUNDING)
    const other = await stepped[2](networks['a hidden layer']!.bytes, undefined)
    expect(await trained(stepped[2], program)).toEqual(found)
    await other.release()
  })

  test('where each node is measured', async () => {
    const program = networks['dropout and batch normalization']!
    const engine = await openEngine({ threads: 2 })
    const data = noise(ROWS, SIZE, CLASSES)
    await engine.write({ ...initialState(program), ...data })
    const loaded = await engine.load(program.bytes, { profile: true })
    const feeds = feedsOf(program, 0, 4, 0.005, ROWS)
    const { loss } = await loaded.run({ feeds, keep: program.keep })
    expectSame({ loss: loss! }, { loss: (await trained(whole[1], program)).loss! }, ROUNDING)
    const nodes = (await loaded.profile())!.flatMap(run => run.nodes)
    expect(nodes.some(({ name }) => name === 'forward/dense_1/Gemm_8')).toBe(true)
    await engine.close()
  })

  test('any perceptron', async () => {
    const layer = fc.record({
      units: fc.integer({ min: 20, max: 150 }),
      activation: fc.constantFrom('relu', 'tanh', 'linear', 'leakyRelu'),
      normalized: fc.boolean(),
    })
    const networksOf = fc.record({
      layers: fc.array(layer, { minLength: 1, maxLength: 3 }),
      batchSize: fc.constantFrom(8, 16, 20, 24, 32, 36),
    })
    let small = 0
    await fc.assert(
      fc.asyncProperty(networksOf, async ({ layers, batchSize }) => {
        const hidden = layers.flatMap(({ units, activation, normalized }) => [
          dense({ units, activation } as Parameters<typeof dense>[0]),
          ...(normalized ? [batchNormalization()] : []),
        ])
        const program = training(hidden, sgd({ momentum: 0.9 }), batchSize)
        if (planOf(program.bytes).isSmall) small++
        expectSame(await trained(stepped[2], program), await trained(whole[1], program), ROUNDING)
      }),
      { numRuns: 30, seed: 4 },
    )
    expect(small).toBeGreaterThan(10)
  })

  test('an evaluation', async () => {
    const model = architectureNamed('bassas/mlp-3').build(SIZE, CLASSES)
    const batch = 32
    const { bytes } = compileEvaluation(model, crossEntropy(), batch)
    expect(planOf(bytes).isSmall).toBe(true)
    const program = compileTraining({ model, loss: crossEntropy(), optimizer: sgd(), batchSize: batch })
    const taken = decodeModel(bytes).graph.inputs.map(({ name }) => name)
    const all = Object.entries(inputsOf(program))
    const inputs = Object.fromEntries(all.filter(([name]) => taken.includes(name)))
    const expected = await resultsOf(whole[1], bytes, inputs)
    expectSame(await resultsOf(stepped[2], bytes, inputs), expected, ROUNDING)
  })
})

describe('any nodes on matrices', () => {
  const EXTENT = 128
  const shape = [EXTENT, EXTENT]
  const on = (bit: number) => ({ int: bit })
  type Emit = (op: string, inputs: string[], attributes?: OnnxNode['attributes']) => string
  type Recipe = (emit: Emit, own: NodeBuilder, x: string, y: string) => string
  /** So that values neither fade nor grow. */
  const scaled = (emit: Emit, own: NodeBuilder, product: string) =>
    emit('Mul', [product, own.constant(hostTensor('float32', [], [1 / 32]))])
  const recipes: Readonly<Record<string, Recipe>> = {
    product: (emit, own, x, y) => scaled(emit, own, emit('MatMul', [x, y])),
    turned: (emit, own, x, y) => scaled(emit, own, emit('Gemm', [x, y], { transB: on(1) })),
    overRows: (emit, own, x, y) => scaled(emit, own, emit('Gemm', [x, y], { transA: on(1) })),
    // Long enough for a kernel.
    chain(emit, _, x, y) {
      const larger = emit('Max', [emit('Relu', [emit('Add', [x, y])]), emit('Neg', [emit('Abs', [x])])])
      const smaller = emit('Min', [emit('Abs', [y]), emit('Sub', [x, y])])
      return emit('Sub', [emit('Max', [larger, y]), emit('Min', [smaller, x])])
    },
    softmax: (emit, _, x) => emit('Softmax', [x], { axis: { int: -1 } }),
    transposed: (emit, _, x) => emit('Transpose', [x], { perm: { ints: [1, 0] } }),
    centred: (emit, own, x) => emit('Sub', [x, emit('ReduceSum', [x, own.ints(1)], { keepdims: on(1) })]),
    summed: (emit, own, x, y) => emit('Add', [y, emit('ReduceSum', [x, own.ints(0)], { keepdims: on(0) })]),
    reshaped: (emit, own, x) => {
      const wide = emit('Tanh', [emit('Reshape', [x, own.ints(EXTENT / 2, 2 * EXTENT)])])
      return emit('Reshape', [wide, own.ints(...shape)])
    },
    // Rows of the data where a task says.
    taken: (emit, _, x) => emit('Gather', ['data', emit('ArgMax', [x], { axis: on(1), keepdims: on(0) })]),
    // Columns: that fits nowhere.
    takenAcross: (emit, _, x) =>
      emit('Add', [
        x,
        emit('Gather', ['data', emit('ArgMax', [x], { axis: on(1), keepdims: on(0) })], { axis: on(1) }),
      ]),
  }
  const names = Object.keys(recipes)

  function modelOf(choices: readonly (readonly [number, number, number])[]): OnnxModel {
    const own = nodeBuilder()
    const emit: Emit = (...node) => own.emit(...node)[0]!
    const rows = own.ints(...Array.from({ length: EXTENT }, (_, i) => (i * 3) % EXTENT))
    const first = emit('Gather', ['data', rows])
    const values = ['s0', first, scaled(emit, own, emit('Gemm', [first, 's0'], { transB: on(1) }))]
    for (const [which, x, y] of choices) {
      const recipe = recipes[names[which % names.length]!]!
      values.push(recipe(emit, own, values[x % values.length]!, values[y % values.length]!))
    }
    own.nodes.push({ op: 'Sub', inputs: ['s0', values.at(-1)!], outputs: ['n0'], attributes: {} })
    return loopModel({
      nodes: own.nodes,
      states: ['a'],
      shape,
      data: ['rows', EXTENT],
      seen: { value: values.at(-2)!, shape },
      initializers: own.constants,
    })
  }

  test('the same as the whole loop', async () => {
    let [small, withKernels, refused] = [0, 0, 0]
    const choices = fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat()), { minLength: 3, maxLength: 12 })
    await fc.assert(
      fc.asyncProperty(choices, async chosen => {
        const made = modelOf(chosen)
        const bytes = encodeModel(made)
        const plan = planSteps(made, { threads: 2, isMeasured: false })
        const tasks = tasksOf(plan?.phases ?? [])
        if (plan?.isSmall) small++
        else if (chosen.some(([which]) => names[which % names.length] === 'takenAcross')) refused++
        if (plan?.isSmall && tasks.some(task => isKernel(task) && !task.updates)) withKernels++
        const inputs = waves(shape, 2)
        const expected = await resultsOf(whole[1], bytes, inputs)
        expectSame(await resultsOf(steppedOrWhole, bytes, inputs), expected, 1e-4)
      }),
      { numRuns: 80, seed: 6 },
    )
    expect(small).toBeGreaterThan(15)
    expect(withKernels).toBeGreaterThan(5)
    expect(refused).toBeGreaterThan(3)
  })
})

test('what parts have of their own stays where it is while memory is tidied up', async () => {
  const program = networks['a hidden layer']!
  const loaded = await stepped[2](program.bytes, undefined)
  const sums: number[] = []
  for (let i = 0; i < 20; i++) {
    // Young objects that live on for a while, so that the collector moves those beside them.
    const held = Array.from({ length: 50_000 }, (_, n) => BigInt64Array.of(BigInt(n)))
    const { loss } = await loaded.run(inputsOf(program))
    sums.push(Array.from(loss!.data as Float32Array).reduce((sum, value) => sum + value, 0) + 0 * held.length)
  }
  await loaded.release()
  expect(new Set(sums).size).toBe(1)
})
