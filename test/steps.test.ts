/**
 * Training programs run step by step, with updates in one pass each, against ONNX Runtime running the whole
 * loop: the same bits.
 */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compileEvaluation } from '../src/compile/evaluate-program.ts'
import { compileTraining, type TrainProgram } from '../src/compile/train-program.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { adagrad, adam, adamW, nadam, type Optimizer, rmsprop, sgd } from '../src/nn/optimizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import { encodeModel } from '../src/onnx/encode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import type { Loader } from '../src/runtime/loaded-program.ts'
import type { Tensors } from '../src/runtime/protocol.ts'
import { planSteps, tasksOf } from '../src/runtime/steps/plan.ts'
import { isKernel } from '../src/runtime/steps/task.ts'
import { type HostTensor, hostTensor, toNumbers } from '../src/util/host-tensor.ts'
import { architectures } from '../src/zoo/index.ts'
import { loopModel } from './loop-model.ts'
import { compiled, data, model } from './step-program.ts'
import { copies, copyOf, resultsOf, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, stateAfter } from './train-with.ts'

/** What several runs give, and the state that they end with. */
async function trained(
  load: Loader,
  program: TrainProgram,
  calls: readonly number[] = [3, 2],
): Promise<Record<string, HostTensor>> {
  const loaded = await load(program.bytes, undefined)
  let state: Tensors = initialState(program)
  const results: Record<string, HostTensor> = {}
  let step = 0
  for (const count of calls) {
    const outputs = await loaded.run({ ...data, ...state, ...feedsOf(program, step, count, 0.01, 40) })
    step += count
    state = { ...state, ...stateAfter(program, outputs) }
    for (const name of ['loss', 'correct', 'finite']) results[`${name} ${step}`] = outputs[name]!
  }
  const last = copies({ ...results, ...state })
  await loaded.release()
  return last
}

const optimizers: Readonly<Record<string, Optimizer>> = {
  adam: adam(),
  'adam, clipped as a whole': adam({ globalClipNorm: 0.1 }),
  'adam, each gradient clipped': adam({ clipNorm: 0.1 }),
  'adam, each value clipped': adam({ clipValue: 0.01 }),
  amsgrad: adam({ amsgrad: true }),
  adamW: adamW({ weightDecay: 0.1 }),
  nadam: nadam(),
  sgd: sgd(),
  'sgd with momentum': sgd({ momentum: 0.9 }),
  "sgd with Nesterov's momentum": sgd({ momentum: 0.9, nesterov: true, weightDecay: 0.1 }),
  rmsprop: rmsprop(),
  'rmsprop, centered': rmsprop({ centered: true, momentum: 0.5 }),
  adagrad: adagrad(),
}

const crew = { threads: 2, isMeasured: false }

describe('the same bits as the whole loop', () => {
  for (const threads of [1, 2] as const)
    test.for(Object.entries(optimizers))(`%s, ${threads} threads`, async ([, optimizer]) => {
      // No halves of them: see small-step.test.ts.
      const program = compiled(optimizer, 7)
      expect(await trained(stepped[threads], program)).toEqual(await trained(whole[threads], program))
    })

  test('with frozen layers, and others that learn at a rate of their own', async () => {
    const frozen = compiled(adam(), 8, { frozen: ['conv2d_1'] })
    expect(await trained(stepped[1], frozen)).toEqual(await trained(whole[1], frozen))
    const slow = compiled(adam(), 8, { backbone: { layers: ['dense_1'], learningRate: 1e-5 } })
    expect(await trained(stepped[1], slow)).toEqual(await trained(whole[1], slow))
  })

  test('where no step is made', async () => {
    const program = compiled(adam())
    const none = Object.fromEntries(
      Object.entries(feedsOf(program, 0, 1, 0.01, 40)).map(([name, { dtype, shape }]) => [
        name,
        hostTensor(dtype, [0, ...shape.slice(1)], []),
      ]),
    )
    const inputs = { ...data, ...initialState(program), ...none, steps: hostTensor('int64', [], [0]) }
    const after = await resultsOf(stepped[1], program.bytes, inputs)
    expect(after).toEqual(await resultsOf(whole[1], program.bytes, inputs))
    expect(after['next/dense_1/kernel']).toEqual(initialState(program)['dense_1/kernel'])
  })

  test('where a run has diverged', async () => {
    const program = compiled(sgd({ learningRate: 1 }))
    const loaded = await stepped[1](program.bytes, undefined)
    const state = { ...initialState(program) }
    state['dense_1/kernel'] = copyOf(state['dense_1/kernel']!)
    state['dense_1/kernel'].data[5] = Number.NaN
    const { finite, 'next/dense_1/kernel': next } = await loaded.run({
      ...data,
      ...state,
      ...feedsOf(program, 0, 1, 0.01, 40),
    })
    expect([finite!.data[0], next!.data[5]]).toEqual([Number.NaN, Number.NaN])
    await loaded.release()
  })
})

/** A loop whose body has these nodes; states s0 and s1 of the given size become n0 and n1, and v is given. */
function loopOf(extent: number, nodes: readonly OnnxNode[]): OnnxModel {
  const sum = (inputs: string[], output: string): OnnxNode => ({
    op: 'ReduceSum',
    name: `forward/x/ReduceSum_${output}`,
    inputs,
    outputs: [output],
    attributes: { keepdims: { int: 0 } },
  })
  return loopModel({
    // What no kernel computes: a sum over the data, and a scalar.
    nodes: [sum(['data', 'axis'], 'v'), sum(['v'], 'r'), ...nodes],
    states: ['a', 'b'],
    shape: [extent],
    data: [2, extent],
    seen: { value: 'r', shape: [] },
    initializers: [
      { name: 'axis', tensor: hostTensor('int64', [1], [0]) },
      { name: 'flat', tensor: hostTensor('int64', [1], [-1]) },
      { name: 'half', tensor: hostTensor('float32', [], [0.5]) },
      // No kernel reads a constant of many values.
      { name: 'many', tensor: hostTensor('float32', [extent], new Array(extent).fill(0.25)) },
    ],
  })
}

describe('any updates', () => {
  const unary = ['Neg', 'Abs', 'Relu', 'Identity', 'Sqrt']
  const binary = ['Add', 'Sub', 'Mul', 'Div', 'Max', 'Min']
  const ops = [...unary, ...binary]

  /** Nodes on random earlier values; the last two become the states. */
  const bodies = fc
    .array(fc.tuple(fc.nat(), fc.nat(), fc.nat()), { minLength: 2, maxLength: 12 })
    .map(choices => {
      const values = ['s0', 's1', 'v', 'r', 'half', 'many']
      const nodes: OnnxNode[] = []
      for (const [i, [which, x, y]] of choices.entries()) {
        const op = ops[which % ops.length]!
        const inputs = [values[x % values.length]!, values[y % values.length]!]
        const output = `x${i}`
        nodes.push({
          op,
          name: `update/x/${op}_${i + 1}`,
          inputs: unary.includes(op) ? inputs.slice(0, 1) : inputs,
          outputs: [output],
          attributes: {},
        })
        values.push(output)
      }
      // A state's value is as large as the state, whatever was drawn.
      for (const [i, name] of values.slice(-2).entries())
        nodes.push({
          op: 'Add',
          name: `update/x/Add_n${i}`,
          inputs: [name, 's0'],
          outputs: [`n${i}`],
          attributes: {},
        })
      return nodes
    })

  test('the same bits as the whole loop', async () => {
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(2, 7, 64, 1001), bodies, async (extent, nodes) => {
        const bytes = encodeModel(loopOf(extent, nodes))
        const wave = (rows: number[], by: number) => {
          const count = rows.reduce((product, n) => product * n, 1)
          return hostTensor(
            'float32',
            rows,
            Array.from({ length: count }, (_, i) => Math.sin(by * i + by)),
          )
        }
        const inputs = {
          steps: hostTensor('int64', [], [3]),
          data: wave([2, extent], 0.1),
          a: wave([extent], 0.3),
          b: wave([extent], 0.7),
        }
        expect(await resultsOf(stepped[1], bytes, inputs)).toEqual(await resultsOf(whole[1], bytes, inputs))
      }),
      { numRuns: 40, seed: 4 },
    )
  })
})

test('what another state becomes is read by an update, and not written by it', async () => {
  const extent = 64
  const model = loopOf(extent, [
    { op: 'Softmax', inputs: ['s0'], outputs: ['n0'], attributes: {} },
    { op: 'Sub', inputs: ['s1', 'n0'], outputs: ['n1'], attributes: {} },
  ])
  const plan = planSteps(model, crew)!
  expect(plan.states.map(({ copied }) => copied)).toEqual(['n0', undefined])
  expect(
    tasksOf(plan.phases)
      .filter(isKernel)
      .map(({ stores }) => stores.map(({ tensor }) => tensor)),
  ).toEqual([['s1']])
})

test('an update of one state reads another in another shape, which others read too', async () => {
  const extent = 64
  const node = (op: string, inputs: string[], output: string): OnnxNode => {
    return { op, inputs, outputs: [output], attributes: {} }
  }
  const model = loopOf(extent, [
    node('Reshape', ['s0', 'flat'], 'row'),
    node('Softmax', ['row'], 'soft'),
    node('Add', ['s0', 'soft'], 'n0'),
    node('Sub', ['s1', 'row'], 'n1'),
  ])
  const inputs = {
    steps: hostTensor('int64', [], [3]),
    data: hostTensor('float32', [2, extent], new Array(2 * extent).fill(0.5)),
    a: hostTensor(
      'float32',
      [extent],
      Array.from({ length: extent }, (_, i) => Math.sin(i)),
    ),
    b: hostTensor(
      'float32',
      [extent],
      Array.from({ length: extent }, (_, i) => Math.cos(i)),
    ),
  }
  const bytes = encodeModel(model)
  expect(await resultsOf(stepped[1], bytes, inputs)).toEqual(await resultsOf(whole[1], bytes, inputs))
})

describe('what is updated in one pass', () => {
  test.for(architectures)('$name: every parameter and slot', ({ build, native }) => {
    const program = compileTraining({
      model: build(native.input, native.classes),
      loss: crossEntropy(),
      optimizer: adam(),
      batchSize: 4,
    })
    const plan = planSteps(decodeModel(program.bytes), crew)!
    const copied = plan.states.filter(state => state.copied !== undefined).map(({ name }) => name)
    const trainable = program.state.filter(({ kind }) => kind === 'parameter').map(({ name }) => name)
    expect(
      copied.filter(name => trainable.includes(name) || /optimizer|packed|momentum|velocity/.test(name)),
    ).toEqual([])
    // What runs in a pass reads the gradient, and what Adam keeps; and nothing twice.
    const kernels = tasksOf(plan.phases).filter(isKernel)
    for (const { stores, steps } of kernels.filter(({ updates }) => updates)) {
      expect(stores.length).toBeLessThanOrEqual(3)
      const loads = steps.flatMap(({ operands }) =>
        operands.flatMap(operand => ('tensor' in operand && operand.at.lanes > 0 ? operand.tensor : [])),
      )
      expect(loads).toEqual([...new Set(loads)])
    }
  })

  test('programs that are no loop over steps, or have nothing for kernels, are left alone', () => {
    const { bytes } = compileEvaluation(model(), crossEntropy(), 8)
    expect(planSteps(decodeModel(bytes), crew)).toBeUndefined()
    const idle = loopOf(4, [
      { op: 'Softmax', inputs: ['s0'], outputs: ['n0'], attributes: {} },
      { op: 'Softmax', inputs: ['s1'], outputs: ['n1'], attributes: {} },
    ])
    expect(planSteps(idle, crew)).toBeUndefined()
  })
})

test('what becomes too small to be normal is zero, whoever computes it', async () => {
  const shape = [60_000]
  const some = [1, 2 ** -126, -(2 ** -126), 2 ** -124, -(2 ** -124), 0, -0, 3]
  const constants = [{ name: 'half', tensor: hostTensor('float32', [], [0.5]) }]
  const node = (op: string, inputs: string[], output: string): OnnxNode => ({
    op,
    inputs,
    outputs: [output],
    attributes: {},
  })
  const program = encodeModel(
    loopModel({
      nodes: [node('Mul', ['s0', 'half'], 'n0'), node('ReduceMax', ['s0'], 'most')],
      states: ['a'],
      shape,
      data: ['rows'],
      seen: { value: 'most', shape: [1] },
      initializers: constants,
    }),
  )
  const inputs = {
    steps: hostTensor('int64', [], [3]),
    data: hostTensor('float32', [1], [0]),
    a: hostTensor(
      'float32',
      shape,
      Array.from({ length: 60_000 }, (_, i) => some[i % some.length]!),
    ),
  }
  const expected = new Set([0.125, 0, 0.375])
  for (const load of [whole[1], stepped[1], stepped[2]]) {
    const values = toNumbers((await resultsOf(load, program, inputs))['next/a']!)
    // Of zeros the sign is the processor's.
    expect(new Set(values.map(value => value + 0))).toEqual(expected)
  }
})
