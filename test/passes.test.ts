/**
 * What kernels compute within a step, against ONNX Runtime computing every node: the same bits, but for sums and
 * weighted rows, which are added up in another order.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileTraining, type TrainProgram } from '../src/compile/train-program.ts'
import { lateralInhibition } from '../src/nn/brain/lateral-inhibition.ts'
import type { Layer } from '../src/nn/layer.ts'
import { conv2d } from '../src/nn/layers/convolution.ts'
import { activation, dense, flatten, rescaling } from '../src/nn/layers/core.ts'
import { batchNormalization } from '../src/nn/layers/normalization.ts'
import { maxPooling2d } from '../src/nn/layers/pooling.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { sgd } from '../src/nn/optimizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel } from '../src/onnx/model.ts'
import type { Loader } from '../src/runtime/loaded-program.ts'
import type { Kernel } from '../src/runtime/steps/kernel.ts'
import { packed } from '../src/runtime/steps/memory.ts'
import { planSteps, tasksOf } from '../src/runtime/steps/plan.ts'
import { isKernel, namesWrittenBy } from '../src/runtime/steps/task.ts'
import { hostTensor, toNumbers } from '../src/util/host-tensor.ts'
import { loopModel, type NodeBuilder, nodeBuilder, waves } from './loop-model.ts'
import { resultsOf, stepped, whole, worstOf } from './step-runs.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

const crew = { threads: 2, isMeasured: false }

/** The kernels of a step's passes: those that are no updates. */
function passesOf(model: OnnxModel): Kernel[] {
  const { phases } = planSteps(model, crew)!
  return tasksOf(phases)
    .filter(isKernel)
    .filter(({ updates }) => !updates)
}

describe('layers', () => {
  const compiled = (layers: Layer[], extent = 20, batchSize = 32) =>
    compileTraining({
      model: sequential([rescaling({ scale: 1 / 255 }), ...layers, flatten(), dense({ units: 3 })], {
        input: [extent, extent, 3],
        name: 'small',
      }),
      loss: crossEntropy(),
      optimizer: sgd({ momentum: 0.9 }),
      batchSize,
    })

  const trained = (load: Loader, program: TrainProgram, extent = 20) =>
    resultsOf(load, program.bytes, {
      ...noise(64, [extent, extent, 3], 3),
      ...initialState(program),
      ...feedsOf(program, 0, 3, 0.01, 64),
    })

  /** As the whole loop; and how threads share the work changes no bit. */
  async function expectSameUpToRounding(program: TrainProgram): Promise<void> {
    const expected = await trained(whole[1], program)
    const one = await trained(stepped[1], program)
    for (const [name, tensor] of Object.entries(expected))
      expect(worstOf(tensor, one[name]!), name).toBeLessThan(2e-6)
    expect(await trained(stepped[2], program)).toEqual(one)
  }

  const pools = (): Layer[] => [
    conv2d({ filters: 8, kernelSize: 3 }),
    maxPooling2d({ poolSize: 2 }),
    conv2d({ filters: 8, kernelSize: 1, activation: 'relu' }),
    maxPooling2d({ poolSize: 3 }),
  ]

  test('pooling and ReLU: the same bits, on any number of threads', async () => {
    const program = compiled(pools())
    expect(passesOf(decodeModel(program.bytes)).length).toBeGreaterThan(1)
    const expected = await trained(whole[1], program)
    for (const load of [stepped[1], stepped[2]]) expect(await trained(load, program)).toEqual(expected)
  })

  const summing: Record<string, () => Layer[]> = {
    'batch normalization': () => [
      conv2d({ filters: 8, kernelSize: 3 }),
      batchNormalization({ momentum: 0.5 }),
      maxPooling2d({ poolSize: 2 }),
    ],
    'convolution by minimal filtering': () => [
      conv2d({ filters: 8, kernelSize: 3, padding: 'same', activation: 'relu' }),
      conv2d({ filters: 12, kernelSize: 3, padding: 'same', activation: 'relu' }),
    ],
    'lateral inhibition': () => [
      conv2d({ filters: 8, kernelSize: 3 }),
      lateralInhibition({ radius: 2 }),
      maxPooling2d({ poolSize: 2 }),
    ],
  }

  test.for(Object.entries(summing))('%s: the same up to rounding', async ([, layers]) => {
    const program = compiled(layers())
    expect(passesOf(decodeModel(program.bytes)).length).toBeGreaterThan(1)
    await expectSameUpToRounding(program)
  })

  // Tiles that fill a map, and that do not; some maps are one tile, or have no tile between their edges.
  test.for([
    [8, 16],
    [9, 16],
    [14, 8],
    [16, 8],
    [23, 8],
    [32, 4],
  ])('tiles of maps of %i, minibatches of %i', async ([extent, batchSize]) => {
    const layers = summing['convolution by minimal filtering']!()
    const program = compiled(layers, extent!, batchSize!)
    const expected = await trained(whole[1], program, extent)
    const found = await trained(stepped[2], program, extent)
    for (const [name, tensor] of Object.entries(expected))
      expect(worstOf(tensor, found[name]!), name).toBeLessThan(2e-6)
  })

  // Where a pooled map is left over, a sum's rows come from several parts of a concatenation.
  test.for([
    [14, 8],
    [15, 10],
    [17, 16],
    [22, 12],
  ])('a sum of what pooling leaves, maps of %i, minibatches of %i', async ([extent, batchSize]) => {
    const program = compiled(summing['batch normalization']!(), extent!, batchSize!)
    const expected = await trained(whole[1], program, extent)
    for (const load of [stepped[1], stepped[2]]) {
      const found = await trained(load, program, extent)
      for (const name of ['next/batchNormalization_1/beta', 'next/batchNormalization_1/gamma'])
        expect(worstOf(expected[name]!, found[name]!), name).toBeLessThan(2e-6)
    }
  })

  // Long rows of a repeated vector, which ONNX Runtime is faster with, then begin within a row of the map.
  test.for([27, 30])('batch normalization by kernels, minibatches of %i', async batchSize => {
    const [, ...others] = summing['batch normalization']!()
    const first = conv2d({ filters: 8, kernelSize: 3, useBias: false })
    const program = compiled([first, ...others], 20, batchSize)
    const { phases } = planSteps(decodeModel(program.bytes), crew)!
    const left = phases.flatMap(phase => ('graph' in phase ? phase.graph.nodes : []))
    expect(left.filter(({ op }) => op === 'Tile')).toEqual([])
    await expectSameUpToRounding(program)
  })

  test('a kernel gradient is computed beside the input gradient, which reads the same cotangent', () => {
    const convolution = (name: string) => conv2d({ name, filters: 16, kernelSize: 3, padding: 'same' })
    const { bytes } = compiled([convolution('first'), batchNormalization(), convolution('second')])
    const { phases } = planSteps(decodeModel(bytes), crew)!
    const graphs = phases.map(phase => ('graph' in phase ? phase.graph.nodes : []))
    const phaseOf = (flag: string) =>
      graphs.findIndex(nodes =>
        nodes.some(({ name, attributes }) => {
          const { [flag]: turned } = attributes
          return (
            name?.startsWith('backward/second/FusedMatMul') && turned && 'int' in turned && turned.int === 1
          )
        }),
      )
    expect(phaseOf('transA')).toBeGreaterThan(0)
    expect(phaseOf('transA')).toBe(phaseOf('transB'))
    expect(phaseOf('transA')).toBeLessThan(graphs.findLastIndex(nodes => nodes.length > 0))
  })

  test('where a value is not a number, so is what is computed from it', async () => {
    const program = compiled(pools())
    const state = { ...initialState(program) }
    state['conv2d_1/kernel'] = hostTensor(
      'float32',
      state['conv2d_1/kernel']!.shape,
      toNumbers(state['conv2d_1/kernel']!).fill(Number.NaN),
    )
    const loaded = await stepped[2](program.bytes, undefined)
    const data = noise(64, [20, 20, 3], 3)
    const { finite } = await loaded.run({ ...data, ...state, ...feedsOf(program, 0, 1, 0.01, 64) })
    expect(finite!.data[0]).toBeNaN()
    await loaded.release()
  })
})

describe('products whose left matrix is to be transposed', () => {
  const compiled = (batchSize: number, units = 512) =>
    compileTraining({
      model: sequential(
        [
          flatten(),
          ...['first', 'second'].flatMap(name => [
            dense({ units, name }),
            batchNormalization(),
            activation('relu'),
          ]),
          dense({ units: 3 }),
        ],
        { input: [12, 12, 1], name: 'normalized' },
      ),
      loss: crossEntropy(),
      optimizer: sgd({ momentum: 0.9 }),
      batchSize,
    })
  const turnedIn = (program: TrainProgram) =>
    passesOf(decodeModel(program.bytes)).flatMap(kernel =>
      namesWrittenBy(kernel).filter(name => name.endsWith('/turned')),
    )

  test('have it from a kernel, where that pays', async () => {
    const program = compiled(128)
    // What the second layer reads, and the cotangent of the first, whose kernel is kept transposed.
    expect(turnedIn(program)).toHaveLength(2)
    expect(turnedIn(compiled(32))).toEqual([])
    // Half a vector.
    expect(turnedIn(compiled(128, 514))).toEqual([])
    const run = (load: Loader) =>
      resultsOf(load, program.bytes, {
        ...noise(128, [12, 12, 1], 3),
        ...initialState(program),
        ...feedsOf(program, 0, 3, 0.01, 128),
      })
    const expected = await run(whole[1])
    const one = await run(stepped[1])
    for (const [name, tensor] of Object.entries(expected))
      expect(worstOf(tensor, one[name]!), name).toBeLessThan(2e-6)
    expect(await run(stepped[2])).toEqual(one)
  })
})

describe('any nodes', () => {
  const [ROWS, COLUMNS, CHANNELS] = [24, 32, 16]
  const shape = [ROWS, COLUMNS, CHANNELS]

  /** Turns rows about: the last first. */
  const mirror = hostTensor(
    'float32',
    [ROWS, ROWS],
    Array.from({ length: ROWS * ROWS }, (_, i) => +((i % ROWS) + Math.floor(i / ROWS) === ROWS - 1)),
  )

  const reshaped = (b: NodeBuilder, x: string, ...extents: number[]): string =>
    b.emit('Reshape', [x, b.ints(...extents)])[0]!

  const turned = (b: NodeBuilder, x: string, y: string, rows: number, columns: number): string => {
    const matrix = reshaped(b, x, rows, columns)
    const other = reshaped(b, y, columns, rows)
    const sum = b.emit('Add', [b.emit('Transpose', [matrix], { perm: { ints: [1, 0] } })[0]!, other])[0]!
    return reshaped(b, sum, ...shape)
  }

  /** Adds the first rows of y, each repeated so often, to x: as one row by default. */
  const repeated = (times: number, [rows, columns]: readonly [number, number], as?: readonly number[][]) => {
    const length = rows * columns * times
    const [own, within] = as ?? [[length], [(ROWS * COLUMNS * CHANNELS) / length, length]]
    return (b: NodeBuilder, x: string, y: string): string => {
      const matrix = reshaped(b, y, (ROWS * COLUMNS * CHANNELS) / columns, columns)
      const first = b.emit('Slice', [matrix, b.ints(0), b.ints(rows), b.ints(0)])[0]!
      const tiled = b.emit('Tile', [first, b.ints(1, times)])[0]!
      const sum = b.emit('Add', [reshaped(b, x, ...within!), reshaped(b, tiled, ...own!)])[0]!
      return reshaped(b, sum, ...shape)
    }
  }

  /** Each makes one value of the shape of all from two others, as layers and their gradients do. */
  const recipes: Record<string, (b: NodeBuilder, x: string, y: string) => string> = {
    add: (b, x, y) => b.emit('Add', [x, y])[0]!,
    subtract: (b, x, y) => b.emit('Sub', [x, y])[0]!,
    multiply: (b, x, y) => b.emit('Mul', [x, y])[0]!,
    larger: (b, x, y) => b.emit('Max', [x, y])[0]!,
    relu: (b, x) => b.emit('Relu', [x])[0]!,
    mask: (b, x) => b.emit('HardSigmoid', [x], { alpha: { float: 3e38 }, beta: { float: 0 } })[0]!,
    sigmoid: (b, x) => b.emit('HardSigmoid', [x])[0]!,
    leaky: (b, x) => b.emit('LeakyRelu', [x], { alpha: { float: 0.2 } })[0]!,
    atLeast: (b, x) => b.emit('Clip', [x, b.constant(hostTensor('float32', [], [-0.5]))])[0]!,
    within: (b, x) =>
      b.emit('Clip', [x, ...[-0.5, 0.5].map(bound => b.constant(hostTensor('float32', [], [bound])))])[0]!,
    halves(b, x, y) {
      const [p, q] = b.emit('Split', [x, b.ints(8, 24)], { axis: { int: 1 } }, 2)
      const [r, s] = b.emit('Split', [y, b.ints(8, 24)], { axis: { int: 1 } }, 2)
      const [sum] = b.emit('Add', [p!, r!])
      const [difference] = b.emit('Sub', [q!, s!])
      return b.emit('Concat', [sum!, difference!], { axis: { int: 1 } })[0]!
    },
    everySecond(b, x) {
      const even = b.emit('Slice', [x, b.ints(0), b.ints(ROWS), b.ints(0), b.ints(2)])[0]!
      const odd = b.emit('Slice', [x, b.ints(1), b.ints(ROWS), b.ints(0), b.ints(2)])[0]!
      const [a] = b.emit('Max', [even, odd])
      return b.emit('Concat', [a!, even], { axis: { int: 0 } })[0]!
    },
    columnsRepeated: repeated(8, [1, CHANNELS]),
    // Rows of one and a half of the map's.
    longRowsRepeated: repeated(48, [1, CHANNELS]),
    matrixRepeated: repeated(3, [2, CHANNELS]),
    columnRepeated: repeated(
      4,
      [1, 4],
      [
        [16, 1],
        [48, 16, 16],
      ],
    ),
    rowsTurned(b, x) {
      const flat = reshaped(b, x, ROWS, COLUMNS * CHANNELS)
      return reshaped(b, b.emit('MatMul', [b.constant(mirror), flat])[0]!, ...shape)
    },
    columnsFirst(b, x, y) {
      const turned = b.emit('Transpose', [x], { perm: { ints: [1, 0, 2] } })[0]!
      return reshaped(b, b.emit('Add', [turned, reshaped(b, y, COLUMNS, ROWS, CHANNELS)])[0]!, ...shape)
    },
    matrixTurned: (b, x, y) => turned(b, x, y, ROWS, COLUMNS * CHANNELS),
    // Three vectors a row.
    narrowMatrixTurned: (b, x, y) => turned(b, x, y, (ROWS * COLUMNS * CHANNELS) / 12, 12),
    // No whole vectors: that is no kernel's.
    oddMatrixTurned: (b, x, y) => turned(b, x, y, (ROWS * COLUMNS * CHANNELS) / 6, 6),
    padded(b, x) {
      const inner = b.emit('Slice', [x, b.ints(1, 3), b.ints(ROWS - 1, COLUMNS), b.ints(0, 1)])[0]!
      return b.emit('Pad', [inner, b.ints(1, 0, 0, 1, 3, 0)])[0]!
    },
    channelsPadded(b, x) {
      const some = b.emit('Slice', [x, b.ints(0), b.ints(8), b.ints(2)])[0]!
      return b.emit('Pad', [some, b.ints(0, 0, 4, 0, 0, CHANNELS - 12)])[0]!
    },
    rowsScaled(b, x, y) {
      const first = b.emit('Slice', [y, b.ints(0), b.ints(1), b.ints(2)])[0]!
      return b.emit('Mul', [x, first])[0]!
    },
  }
  const names = Object.keys(recipes)

  function model(choices: readonly (readonly [number, number, number])[]): OnnxModel {
    const b = nodeBuilder()
    // What no kernel computes.
    const values = [b.emit('Tanh', ['data'])[0]!, b.emit('Sigmoid', ['data'])[0]!]
    for (const [which, x, y] of choices)
      values.push(
        recipes[names[which % names.length]!]!(b, values[x % values.length]!, values[y % values.length]!),
      )
    const last = b.emit('Tanh', [values.at(-1)!])[0]!
    b.nodes.push({ op: 'Add', inputs: ['s0', last], outputs: ['n0'], attributes: {} })
    return loopModel({
      nodes: b.nodes,
      states: ['a'],
      shape,
      data: shape,
      seen: { value: values.at(-2)!, shape },
      initializers: b.constants,
    })
  }

  test('the same bits as the whole loop', async () => {
    let [kernels, turns] = [0, 0]
    const choices = fc.array(fc.tuple(fc.nat(), fc.nat(), fc.nat()), { minLength: 8, maxLength: 24 })
    await fc.assert(
      fc.asyncProperty(choices, async chosen => {
        const made = model(chosen)
        const passes = passesOf(made)
        kernels += passes.length
        turns += passes.filter(({ steps }) => steps.some(({ op }) => op === 'HighPairs')).length
        const bytes = encodeModel(made)
        const run = async (load: Loader) =>
          Object.values(await resultsOf(load, bytes, waves(shape, 2))).map(({ data }) => data as Float32Array)
        const expected = await run(whole[1])
        for (const [i, values] of (await run(stepped[2])).entries())
          expect(
            values.findIndex((value, at) => !Object.is(value + 0, expected[i]![at]! + 0)),
            'the first value that differs',
          ).toBe(-1)
      }),
      { numRuns: 70, seed: 11 },
    )
    // Most of them are worth kernels.
    expect(kernels).toBeGreaterThan(40)
    expect(turns).toBeGreaterThan(10)
  })
})

test('values that are needed at one time share no bytes, and others may', () => {
  const value = fc.record({ bytes: fc.nat(5000), from: fc.nat(9), length: fc.nat(5) })
  fc.assert(
    fc.property(fc.array(value, { maxLength: 30 }), given => {
      const values = given.map(({ bytes, from, length }) => ({ bytes, from, to: from + length }))
      const { offsets, bytes } = packed(values)
      for (const [i, a] of values.entries()) {
        const begin = offsets.get(a)!
        expect(begin + a.bytes).toBeLessThanOrEqual(bytes)
        for (const b of values.slice(0, i)) {
          const together = a.from <= b.to && b.from <= a.to
          const apart = begin + a.bytes <= offsets.get(b)! || offsets.get(b)! + b.bytes <= begin
          expect(apart || !together).toBe(true)
        }
      }
    }),
  )
  const inTurns = Array.from({ length: 10 }, (_, i) => ({ bytes: 1024, from: 2 * i, to: 2 * i + 1 }))
  expect(packed(inTurns).bytes).toBe(1024)
})
