/** Penalties of large kernels: the kernels that update them sum them up, on their way. */
import { expect, test } from 'vitest'
import { compileTraining } from '../src/compile/train-program.ts'
import { dense, flatten, rescaling } from '../src/nn/layers/core.ts'
import { crossEntropy } from '../src/nn/losses.ts'
import { sequential } from '../src/nn/model.ts'
import { sgd } from '../src/nn/optimizers.ts'
import { l1, l1l2, l2 } from '../src/nn/regularizers.ts'
import { decodeModel } from '../src/onnx/decode.ts'
import type { OnnxModel, OnnxNode } from '../src/onnx/model.ts'
import { planSteps } from '../src/runtime/steps/plan.ts'
import { loopModel } from './loop-model.ts'
import { expectSame, resultsOf, stepped, whole } from './step-runs.ts'
import { feedsOf, initialState, noise } from './train-with.ts'

/** What ONNX Runtime runs. */
function nodesOf(model: OnnxModel): OnnxNode[] {
  const { phases } = planSteps(model, { threads: 2, isMeasured: false })!
  return phases.flatMap(phase => ('graph' in phase ? phase.graph.nodes : []))
}

const operators = (model: OnnxModel) => nodesOf(model).map(({ op }) => op)

test('the same up to rounding, on any number of threads', async () => {
  const program = compileTraining({
    model: sequential(
      [
        rescaling({ scale: 1 / 255 }),
        flatten(),
        dense({ units: 2048, activation: 'relu', kernelRegularizer: l2(1e-3) }),
        dense({ units: 64, kernelRegularizer: l1(1e-4) }),
      ],
      { input: [6, 6, 1], name: 'penalized' },
    ),
    loss: crossEntropy(),
    optimizer: sgd({ momentum: 0.9 }),
    batchSize: 8,
  })
  expect(operators(decodeModel(program.bytes)).filter(op => /ReduceSumSquare|ReduceL1/.test(op))).toEqual([])
  const inputs = { ...noise(40, [6, 6, 1], 3), ...initialState(program), ...feedsOf(program, 0, 4, 0.01, 40) }
  const expected = await resultsOf(whole[1], program.bytes, inputs)
  for (const load of Object.values(stepped))
    expectSame(await resultsOf(load, program.bytes, inputs), expected, 1e-5)
})

test('a sum that the state itself depends on is no part of the updates', () => {
  const shape = [256, 512]
  const nodes: OnnxNode[] = [
    { op: 'ReduceSumSquare', inputs: ['s0'], outputs: ['sum'], attributes: { keepdims: { int: 0 } } },
    { op: 'Mul', inputs: ['data', 'sum'], outputs: ['scaled'], attributes: {} },
    { op: 'Sub', inputs: ['s0', 'scaled'], outputs: ['n0'], attributes: {} },
  ]
  const model = loopModel({
    nodes,
    states: ['a'],
    shape,
    data: shape,
    seen: { value: 'scaled', shape },
    initializers: [],
  })
  expect(operators(model)).toContain('ReduceSumSquare')
})

test('of two kinds for one kernel have names of their own, as a profile needs them', () => {
  const { bytes } = compileTraining({
    model: sequential([flatten(), dense({ units: 2048, kernelRegularizer: l1l2({ l1: 1e-4, l2: 1e-3 }) })], {
      input: [6, 6, 1],
      name: 'penalized twice',
    }),
    loss: crossEntropy(),
    optimizer: sgd(),
    batchSize: 8,
  })
  const names = nodesOf(decodeModel(bytes)).flatMap(({ name }) => name ?? [])
  expect(names.filter(name => name.includes('ReduceSum of'))).toHaveLength(2)
  expect(new Set(names).size).toBe(names.length)
})
